//! The executor: carries out programs on a real VM of `/dev/kvm` and says what was observed.
//!
//! One VM serves any number of programs. Each begins with no memslots and with every host page bearing its first identity,
//! and ends with its memslots deleted, so what is observed does not depend on the programs before. Programs name vCPUs; each is
//! a KVM vCPU of its own, but they take turns on one thread.

mod accesses;
mod halves;
mod hold;
mod private;
mod protected;
mod stress;

pub use stress::StressReport;

use crate::address_space::AddressSpace;
use crate::driver::{Driven, DriverTable};
use crate::error::{Doing, MachineError};
use crate::fingerprint::{self, Fingerprint};
use crate::guest;
use crate::guest_memfd;
use crate::ioctl::{Region, delete_region, set_region, stats_file};
use crate::ioeventfd::Bells;
use crate::memory::{Pages, shared_mappings};
use crate::memslots::{Backing, KVM_SLOTS, Memslots};
use crate::realisation::Realisation;
use crate::ring::{self, Ring};
use crate::stats::Stats;
use crate::support::{STOLEN_BITS, supports};
use crate::trace::Trace;
use crate::vcpu::Vcpu;
use crate::watchdog::Watchdog;
use crate::witness::Witness;
use accesses::Batches;
use gpa_model::limits::{HOST_PAGES, VCPUS};
use gpa_model::{Driver, Exit, Gpa, Host, Hva, HvaRange, Model, Op, Pfn, Program, Vm};
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_enable_cap};
use kvm_ioctls::{Cap, VmFd};
use private::{Private, Wanted};
use std::sync::Arc;

const OWN_SLOT: u32 = KVM_SLOTS;
const TABLE_SLOT: u32 = KVM_SLOTS + 1;
/// The first of those that no program and no guest needs.
const SPARE_SLOT: u32 = KVM_SLOTS + 2;

/// A VM of `/dev/kvm`, ready for programs. It belongs to the thread that opened it.
#[derive(Debug)]
pub struct Machine {
    // Declared, and so dropped, before the memory they use.
    vcpus: Vec<Vcpu>,
    stats: Option<Stats>,
    fd: Arc<VmFd>,
    memory: Pages,
    /// KVM's own memslots.
    private: Vec<Private>,
    drivers: DriverTable,
    own: Pages,
    tables: Pages,
    watchdog: Watchdog,
    fingerprint: Fingerprint,
    proof: Option<Proof>,
    /// The bits that can be stolen here.
    stealable: Vec<u8>,
    memslots: Memslots,
    /// The VM whose frames each window shows.
    windows: Vec<Vm>,
    /// The window of the program that runs.
    window: usize,
    /// How often all windows were given up.
    tables_written: u64,
    /// The identity each host page bears.
    stamps: [Pfn; HOST_PAGES],
    /// The memslot change that is in its middle.
    half: Option<halves::Half>,
    batches: Batches,
    bells: Bells,
    accesses: u64,
    /// What the write enqueued last leaves in its word.
    values: u64,
}

/// What KVM's counters said before and after accesses whose number is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The counters before.
    pub before: Witness,
    /// The counters after.
    pub after: Witness,
}

impl Machine {
    /// Open `/dev/kvm`, create the VM, and find out whether its guest runs natively. Aliases are memslots of their own.
    ///
    /// # Errors
    /// A [`MachineError`] if there is no usable KVM here.
    pub fn open() -> Result<Self, MachineError> {
        Self::open_with(Realisation::default())
    }

    /// The same, with aliases made by `realisation`.
    ///
    /// # Errors
    /// A [`MachineError`] if there is no usable KVM here, or it does not offer that.
    pub fn open_with(realisation: Realisation) -> Result<Self, MachineError> {
        Self::open_as(realisation, None)
    }

    /// Native, on a kernel that was told to strip `bits`. Whether it does is for programs to find out.
    pub(crate) fn open_stripping(bits: &[u8]) -> Result<Self, MachineError> {
        Self::open_as(Realisation::Native, Some(bits))
    }

    fn open_as(realisation: Realisation, stripped: Option<&[u8]>) -> Result<Self, MachineError> {
        let mut machine = Self::create(realisation, &[])?;
        if realisation == Realisation::Native {
            machine.stealable = match stripped {
                Some(bits) => bits.to_vec(),
                None => machine.bits_stripped()?,
            };
        }
        // What is not known to be right proves nothing.
        let alias = machine.stealable.first().copied().filter(|_| stripped.is_none());
        machine.prove(alias)?;
        Ok(machine)
    }

    /// A machine of which nothing is proven yet, with those of the private memslots `wanted` that KVM makes.
    fn create(realisation: Realisation, wanted: &[Wanted]) -> Result<Self, MachineError> {
        let kvm = crate::ioctl::open()?;
        let protected = realisation == Realisation::SwProtected;
        if protected {
            guest_memfd::require(&kvm)?;
        }
        let fd = crate::ioctl::create_vm(&kvm, if protected { guest_memfd::VM_TYPE } else { 0 })?;
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).doing("get the supported CPUID")?;
        let mut fingerprint = Fingerprint { realisation, ..fingerprint::read(&fd, &cpuid)? };
        if realisation.zaps_slots_alone() && zap_slots_alone(&fd) {
            fingerprint.capabilities.push("zap-slot".into());
        }
        let memory = match realisation.mappings() {
            1 => Pages::new(HOST_PAGES),
            mappings => Pages::shared(HOST_PAGES, mappings),
        };
        let memory = memory.doing("map memory for the guest")?;
        let huge = || Pages::huge().doing("map memory for the guest");
        let (own, tables) = (huge()?, huge()?);
        if realisation == Realisation::Smm {
            AddressSpace::require_all(&fd)?;
            fingerprint.capabilities.push("smm".into());
        }
        if protected {
            guest_memfd::require_in(&fd)?;
            fingerprint.capabilities.push("guest-memfd".into());
        }
        if realisation == Realisation::Ioeventfds {
            crate::ioeventfd::require(&fd)?;
            fingerprint.capabilities.push("ioeventfd-any-length".into());
        }
        if realisation == Realisation::Rings {
            enable_rings(&fd)?;
            fingerprint.capabilities.push("dirty-log-ring".into());
        } else {
            enable_manual_protect(&fd)?;
        }
        fingerprint.capabilities.sort();
        guest::load_code(&own);
        guest::write_tables(&tables);
        for space in realisation.address_spaces() {
            map_whole(&fd, &own, space.slot(OWN_SLOT), guest::OWN_GFN)?;
            map_whole(&fd, &tables, space.slot(TABLE_SLOT), guest::TABLE_GFN)?;
        }
        let mut private = private::before_vcpus(&fd, wanted)?;
        let before = shared_mappings().doing("list the mappings of this process")?;
        let mut vcpus = (0..VCPUS).map(|number| Vcpu::new(&fd, &cpuid, number)).collect::<Result<Vec<_>, _>>()?;
        private.extend(private::after_vcpus(wanted, &before)?);
        let mut memslots = Memslots::default();
        if realisation == Realisation::Rings {
            let rings = vcpus.iter_mut().map(|vcpu| Ring::new(vcpu.fd()));
            memslots.use_rings(rings.collect::<Result<_, _>>().doing("map a dirty ring")?);
        }
        let maxphyaddr = fingerprint.maxphyaddr;
        Ok(Self {
            stats: stats_file(&fd).and_then(Stats::new).ok(),
            vcpus,
            fd: Arc::new(fd),
            drivers: DriverTable::probe(&memory),
            memory,
            private,
            own,
            tables,
            watchdog: Watchdog::new().doing("set up the watchdog")?,
            fingerprint,
            proof: None,
            stealable: STOLEN_BITS.filter(|bit| *bit < maxphyaddr).collect(),
            memslots,
            windows: Vec::with_capacity(guest::WINDOWS),
            window: 0,
            tables_written: 0,
            stamps: [Pfn::new(0); HOST_PAGES],
            half: None,
            batches: Batches::default(),
            bells: Bells::default(),
            accesses: 0,
            values: 0,
        })
    }

    /// The bits of a GPA that this kernel strips by itself: where only the base has a memslot, the alias is no hole.
    fn bits_stripped(&mut self) -> Result<Vec<u8>, MachineError> {
        let mut stripped = Vec::new();
        for bit in self.stealable.clone() {
            let program = crate::witness::one_alias(bit);
            let trace = self.run(&program)?;
            if !matches!(trace.observations.last(), Some(Some(Exit::Mmio(_)))) {
                stripped.push(bit);
            }
        }
        if stripped.is_empty() {
            return Err(MachineError::Missing("stolen bits of its own"));
        }
        Ok(stripped)
    }

    /// What this machine is, for traces.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// The evidence that guest accesses run natively, or do not; `None` if this kernel shows no counters.
    pub fn proof(&self) -> Option<&Proof> {
        self.proof.as_ref()
    }

    /// The GPA bits that programs can steal here.
    pub fn stealable(&self) -> &[u8] {
        &self.stealable
    }

    /// By what means pages are taken away here, and how often each was used.
    pub fn drivers(&self) -> &DriverTable {
        &self.drivers
    }

    /// Guest accesses carried out so far.
    pub fn accesses(&self) -> u64 {
        self.accesses
    }

    /// KVM's counters now, those of vCPUs summed up.
    pub fn witness(&self) -> Witness {
        let vcpus = self.vcpus.iter().filter_map(Vcpu::stats);
        let files: Vec<&Stats> = self.stats.iter().chain(vcpus).collect();
        Witness::read(self.accesses, self.vcpus.iter().map(Vcpu::exits).sum(), &files)
    }

    /// Carry out `program`.
    ///
    /// # Errors
    /// A [`MachineError`] if the machine fails; the next program finds it in order again, or fails too.
    pub fn run(&mut self, program: &Program) -> Result<Trace, MachineError> {
        let mut trace = Trace::default();
        self.run_into(program, &mut trace)?;
        Ok(trace)
    }

    /// The same, over an old trace, whose allocations are kept.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub fn run_into(&mut self, program: &Program, trace: &mut Trace) -> Result<(), MachineError> {
        trace.fingerprint.clone_from(&self.fingerprint);
        trace.program.clone_from(program);
        trace.samples = 1;
        trace.variants.clear();
        trace.observations.clear();
        trace.observations.resize(program.ops.len(), None);
        let wanted = private::wanted(program);
        // Where memory is private, a hole that an earlier program found would shut the guest out of it.
        if !wanted.is_empty() || self.fingerprint.realisation == Realisation::SwProtected {
            return self.run_apart(&wanted, program, &mut trace.observations);
        }
        let result = self.carry_out(program, &mut trace.observations);
        let ended = self.end_change();
        let cleared = ended.and_then(|_| self.memslots.clear(&self.fd));
        if result.is_err() || cleared.is_err() {
            self.recover();
        }
        result.and(cleared)
    }

    fn carry_out(&mut self, program: &Program, observations: &mut [Option<Exit>]) -> Result<(), MachineError> {
        let vm = &program.vm;
        let (maxphyaddr, realisation) = (self.fingerprint.maxphyaddr, self.fingerprint.realisation);
        if let Some(&bit) = vm.stolen().bits().iter().find(|&&bit| bit >= maxphyaddr) {
            return Err(MachineError::StolenBit { bit, maxphyaddr });
        }
        if !vm.stolen().bits().iter().all(|bit| self.stealable.contains(bit)) {
            let known = program.ops.iter().zip(observations).filter(|(op, _)| supports(vm, op, realisation));
            known.for_each(|(_, observation)| *observation = Some(Exit::Unsupported));
            return Ok(());
        }
        let (mut host, mut model) = (Host::new(vm), Model::new(vm));
        self.begin(vm, &host)?;
        self.watchdog.arm().doing("arm the watchdog")?;
        let mut next = 0;
        while let Some(op) = program.ops.get(next) {
            let at = next;
            next += 1;
            if !supports(vm, op, realisation) || !model.accepts(&host, op) {
                continue;
            }
            if let Op::Access { vcpu, gpa, access } = *op {
                // Whether later ops are accepted hangs on memslots alone, so the model need not wait for the answer.
                self.enqueue(vm, at, vcpu, gpa, access, observations)?;
                continue;
            }
            self.run_batches(vm, observations)?;
            if let Op::FaultBegin { vcpu, gpa, access } = *op {
                match self.hold(program, at, &mut host, &mut model, observations)? {
                    Some(after) => next = after,
                    None => self.enqueue(vm, at, vcpu, gpa, access, observations)?,
                }
                continue;
            }
            let done = match *op {
                Op::Unmap { range, by } => self.unmap(range, by)?,
                Op::Slot { id, .. } if id.is_private() => self.private_slot(vm, &host, id)?,
                _ => true,
            };
            if !done {
                observations[at] = Some(Exit::Unsupported);
                continue;
            }
            host.apply(op);
            let exit = self.carry_out_op(vm, &host, op)?;
            observations[at] = Some(exit);
            if exit != Exit::Unsupported || !matches!(op, Op::SlotBegin { .. }) {
                model.step(&host, op, &Exit::Done);
            }
        }
        self.run_batches(vm, observations)?;
        self.watchdog.disarm();
        Ok(())
    }

    /// Make the machine that of a new VM.
    fn begin(&mut self, vm: &Vm, host: &Host) -> Result<(), MachineError> {
        self.memslots.begin(vm, self.fingerprint.realisation);
        self.batches.clear();
        for page in 0..HOST_PAGES {
            let pfn = host.pfn(Hva::new(page as u64));
            if self.stamps[page] != pfn {
                self.stamp(page, pfn);
            }
        }
        let same = |old: &Vm| old.stolen() == vm.stolen() && old.base() == vm.base();
        self.window = match self.windows.iter().position(same) {
            Some(window) => window,
            None => self.show(vm)?,
        };
        Ok(())
    }

    /// Let the guest see the frames of `vm`, and say in which window. Writes to page tables from user space are invisible to
    /// KVM, so when there is no unused table, what it made of the old ones has to go: their memslot is deleted, and CR3 changes.
    fn show(&mut self, vm: &Vm) -> Result<usize, MachineError> {
        if self.windows.len() == guest::WINDOWS {
            self.windows.clear();
            for space in self.fingerprint.realisation.address_spaces() {
                let slot = space.slot(TABLE_SLOT);
                delete_region(&self.fd, slot).doing("delete the memslot of the page tables")?;
                map_whole(&self.fd, &self.tables, slot, guest::TABLE_GFN)?;
            }
            self.tables_written += 1;
        }
        let window = self.windows.len();
        guest::write_window(&self.tables, window, vm, self.fingerprint.realisation);
        self.windows.push(*vm);
        Ok(window)
    }

    /// Have this thread look up from its vCPUs every so often.
    fn rouse(&mut self) -> Result<(), MachineError> {
        self.watchdog.rouse().doing("rouse the machine from its vCPUs")
    }

    /// Put everything in order after a failure, as well as it goes.
    fn recover(&mut self) {
        self.watchdog.disarm();
        self.batches.clear();
        self.memslots.scrub(&self.fd);
        // A driver may have failed half-way.
        self.stamps = [Pfn::new(0); HOST_PAGES];
        for vcpu in &mut self.vcpus {
            // What cannot be restarted fails again, and says so, when it is used.
            let _ = vcpu.restart(0);
        }
    }

    fn stamp(&mut self, page: usize, pfn: Pfn) {
        guest::stamp(&self.memory, page, pfn);
        self.stamps[page] = pfn;
    }

    fn carry_out_op(&mut self, vm: &Vm, host: &Host, op: &Op) -> Result<Exit, MachineError> {
        let kvm = Backing { fd: &self.fd, memory: &self.memory, vm };
        Ok(match *op {
            // It was there from the start.
            Op::Slot { id, .. } if id.is_private() => Exit::Done,
            Op::Slot { id, change } => {
                self.memslots.change(kvm, id, change)?;
                let private = self.memslots.private_frames(vm, Some(id), None);
                self.stamp_private(private)?;
                Exit::Done
            }
            Op::SlotBegin { id, change } => self.begin_change(vm, id, change)?,
            Op::SlotEnd => self.end_change()?,
            Op::SlotAliased { id, gpa, pages, hva } => match self.memslots.try_at(kvm, id, gpa, pages, hva)? {
                true => Exit::Done,
                false => Exit::Refused,
            },
            Op::Prefault { vcpu, gpa } => self.prefault(vm, vcpu, gpa)?,
            Op::DirtyGet { id } => Exit::Dirty(self.memslots.dirty(kvm, id)?),
            Op::DirtyClear { id, gfn, pages } => {
                self.memslots.clear_dirty(kvm, id, gfn, pages)?;
                Exit::Done
            }
            Op::Unmap { range, .. } => {
                self.restamp(host, range);
                self.memslots.discard_private(range)?;
                let private = self.memslots.private_frames(vm, None, Some(range));
                self.stamp_private(private)?;
                Exit::Done
            }
            _ => Exit::Unsupported,
        })
    }

    /// Ask for a page to be mapped before the guest needs it.
    fn prefault(&mut self, vm: &Vm, vcpu: u8, gpa: Gpa) -> Result<Exit, MachineError> {
        let realisation = self.fingerprint.realisation;
        let Some((frame, alias)) = vm.locate(gpa).filter(|_| realisation.can_prefault()) else {
            return Ok(Exit::Unsupported);
        };
        let alias = vm.stolen().alias_index(alias);
        let vcpu = &mut self.vcpus[usize::from(vcpu)];
        vcpu.enter_space(realisation.address_space(alias))?;
        match vcpu.pre_fault(vm.gpa(frame, realisation.alias_in_tables(alias))) {
            Ok(()) => Ok(Exit::Done),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT) => Ok(Exit::NotFound),
                Some(libc::EINVAL) => Ok(Exit::Refused),
                Some(libc::EAGAIN | libc::EINTR) => Ok(Exit::Retry),
                Some(libc::EFAULT) => Ok(Exit::Error),
                // Shadow paging, or an older kernel.
                Some(libc::EOPNOTSUPP | libc::ENOTTY) => Ok(Exit::Unsupported),
                _ => Err(error).doing("prefault a page"),
            },
        }
    }

    /// Whether this KVM can be asked to map pages before the guest needs them.
    pub fn can_prefault(&self) -> bool {
        self.fingerprint.realisation.can_prefault()
            && self.fd.check_extension_raw(kvm_bindings::KVM_CAP_PRE_FAULT_MEMORY.into()) > 0
    }

    /// Have the host take pages away; whether it can in that way.
    fn unmap(&mut self, range: HvaRange, by: Option<Driver>) -> Result<bool, MachineError> {
        let (start, pages) = (range.start.page() as usize, range.pages as usize);
        let driven = self.drivers.unmap(by, &self.memory, start, pages).doing("take host pages away")?;
        Ok(driven != Driven::Lacking)
    }

    /// Give the pages of `range` the identities that `host` has for them.
    fn restamp(&mut self, host: &Host, range: HvaRange) {
        for hva in range.iter() {
            self.stamp(hva.page() as usize, host.pfn(hva));
        }
    }

    /// Carry out accesses whose number is known, and look at KVM's counters.
    fn prove(&mut self, alias: Option<u8>) -> Result<(), MachineError> {
        let program = crate::witness::calibration(alias);
        let mut observations = vec![None; program.ops.len()];
        let before = self.witness();
        let result = self.carry_out(&program, &mut observations);
        // Before the memslots go: some counters say what is mapped now.
        let after = self.witness();
        self.memslots.clear(&self.fd)?;
        result?;
        self.fingerprint.native = after.is_native_since(&before);
        self.fingerprint.witness = after.words_since(&before);
        self.proof = after.has_counters().then_some(Proof { before, after });
        Ok(())
    }
}

fn map_whole(fd: &VmFd, memory: &Pages, slot: u32, gfn: u64) -> Result<(), MachineError> {
    let region = Region { slot, flags: 0, gpa: Gpa::from_page(gfn), mapping: 0, page: 0, pages: memory.len() };
    set_region(fd, memory, region).doing("set a memslot of the guest's own")
}

/// Get the dirty log without clearing it, and clear it page by page.
fn enable_manual_protect(fd: &VmFd) -> Result<(), MachineError> {
    let cap = kvm_bindings::KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2;
    if fd.check_extension_raw(cap.into()) == 0 {
        return Err(MachineError::Missing("KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2"));
    }
    if !fd.check_extension(Cap::ReadonlyMem) {
        return Err(MachineError::Missing("KVM_CAP_READONLY_MEM"));
    }
    let mut enable = kvm_enable_cap { cap, ..Default::default() };
    enable.args[0] = kvm_bindings::KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE.into();
    fd.enable_cap(&enable).doing("enable KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2")
}

/// Have each vCPU list the pages it makes dirty.
fn enable_rings(fd: &VmFd) -> Result<(), MachineError> {
    let (cap, bytes) = ring::CAPABILITY;
    if u64::try_from(fd.check_extension_raw(cap.into())).is_ok_and(|most| most < bytes) {
        return Err(MachineError::Missing("KVM_CAP_DIRTY_LOG_RING_ACQ_REL"));
    }
    let mut enable = kvm_enable_cap { cap, ..Default::default() };
    enable.args[0] = bytes;
    fd.enable_cap(&enable).doing("enable KVM_CAP_DIRTY_LOG_RING_ACQ_REL")
}

/// Have KVM zap what maps a memslot that goes, by its reverse map, instead of everything; whether it can.
fn zap_slots_alone(fd: &VmFd) -> bool {
    /// `KVM_CAP_DISABLE_QUIRKS2`, and the quirk that a slot's end is the end of all translations.
    const DISABLE_QUIRKS: u32 = 213;
    const SLOT_ZAP_ALL: u64 = 0x80;
    let quirks = fd.check_extension_raw(DISABLE_QUIRKS.into());
    let mut disable = kvm_enable_cap { cap: DISABLE_QUIRKS, ..Default::default() };
    disable.args[0] = SLOT_ZAP_ALL;
    quirks > 0 && quirks as u64 & SLOT_ZAP_ALL != 0 && fd.enable_cap(&disable).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn machine() -> Option<Machine> {
        match Machine::open() {
            Ok(machine) => Some(machine),
            Err(error) if error.is_absence() => {
                println!("SKIPPED: {error}");
                None
            }
            Err(error) => panic!("/dev/kvm is there, but: {error}"),
        }
    }

    #[test]
    fn a_guest_that_never_exits_is_an_error_and_the_machine_goes_on() {
        let Some(mut machine) = machine() else { return };
        let program = crate::witness::calibration(Some(40));
        let good = machine.run(&program).expect("a run");
        machine.watchdog = Watchdog::with_limit(Duration::from_millis(50)).expect("a watchdog");
        guest::break_code(&machine.own);
        assert!(matches!(machine.run(&program), Err(MachineError::Hung(_))));
        machine.watchdog = Watchdog::new().expect("a watchdog");
        guest::load_code(&machine.own);
        assert_eq!(machine.run(&program).expect("a run"), good);
    }

    #[test]
    fn a_guest_that_dies_is_an_error_and_the_machine_goes_on() {
        let Some(mut machine) = machine() else { return };
        let program = crate::witness::calibration(Some(40));
        let good = machine.run(&program).expect("a run");
        guest::crash_code(&machine.own);
        assert!(matches!(machine.run(&program), Err(MachineError::Exit(_))));
        guest::load_code(&machine.own);
        assert_eq!(machine.run(&program).expect("a run"), good);
    }

    /// The positive control of stamps: a page that bears another identity than the model's is seen as that other page.
    #[test]
    fn a_page_with_another_identity_is_noticed_by_every_kind_of_access() {
        let Some(mut machine) = machine() else { return };
        let text = "gpafuzz-program 1\nvm stolen=40 vcpus=1 base=0x1e0 flush=works\n\
                    slot 0 create gfn=0x1e0 pages=1 hva=3\nv0 read 0x1e0\nv0 write 0x1e0@1\nv0 execute 0x1e0@1\n";
        let program = gpa_model::text::parse(text).expect("a program");
        // Behind the machine's back: it still believes that the page bears its first identity.
        guest::stamp(&machine.memory, 3, Pfn::new(777));
        let trace = machine.run(&program).expect("a run");
        assert_eq!(trace.observations[1..], [Some(Exit::Memory(Pfn::new(777))); 3]);
    }

    /// An eventfd rings for its own name of a hole and for no other, for nothing that is memory, and what rings wrongly is noticed.
    #[test]
    fn an_ioeventfd_rings_for_one_name() {
        use crate::ioeventfd::{Rung, require};
        let Some(mut machine) = machine() else { return };
        if let Err(error) = require(&machine.fd) {
            return println!("SKIPPED: {error}");
        }
        let head = "gpafuzz-program 1\nvm stolen=40 vcpus=1 base=0x1e0 flush=works\n";
        let text = format!("{head}slot 0 create gfn=0x1e0 pages=1 hva=0\nv0 write 0x1e0@1\nv0 write 0x1e4@1\n");
        let program = gpa_model::text::parse(&text).expect("a program");
        let word = |op, frame, alias| Gpa::new(program.vm.gpa(frame, alias).raw() + guest::word_offset(op) as u64);
        let mut rung = |op, frame, expected| {
            let mut bells = Bells::default();
            bells.hang(&machine.fd, [word(op, frame, 0), word(op, frame, 1)]).expect("eventfds");
            machine.run(&program).expect("a run");
            let rung = bells.rung(word(op, frame, expected)).expect("what rang");
            bells.take_down(&machine.fd).expect("none left");
            rung
        };
        assert_eq!(rung(2, 4, 1), Rung::Own);
        assert_eq!(rung(2, 4, 0), Rung::Wrong);
        assert_eq!(rung(1, 0, 1), Rung::Nothing);
    }
}
