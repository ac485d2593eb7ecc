//! Runs one program: resets the machine, carries out the ops in order, and cleans up.

use super::{Machine, TABLE_SLOT, internal_slots, map_whole};
use crate::error::{Doing, MachineError};
use crate::guest::{layout, names, page};
use crate::host::reclaim::put_back;
use crate::kvm::alias_method::AliasMethod;
use crate::kvm::ioctl::delete_region;
use crate::trace::Trace;
use crate::trace::support::supports;
use gpa_model::limits::HOST_PAGES;
use gpa_model::{Exit, Host, HostPage, Model, Op, Pfn, Program, VmConfig};

impl Machine {
    /// Carries out `program`.
    ///
    /// # Errors
    /// A [`MachineError`] if the machine fails. The next program finds it clean again, or fails too.
    pub fn run(&mut self, program: &Program) -> Result<Trace, MachineError> {
        let mut trace = Trace::default();
        self.run_into(program, &mut trace)?;
        Ok(trace)
    }

    /// Like [`Machine::run`], into an old trace, whose allocations are reused.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub fn run_into(&mut self, program: &Program, trace: &mut Trace) -> Result<(), MachineError> {
        trace.fingerprint.clone_from(&self.fingerprint);
        trace.program.clone_from(program);
        trace.samples = 1;
        trace.variants.clear();
        trace.seen.clear();
        trace.observations.clear();
        trace.observations.resize(program.ops.len(), None);
        let wanted = internal_slots::wanted(program, self.fingerprint.alias_method);
        let apart = match self.fingerprint.alias_method {
            // The guest could not access private memory where an earlier program has seen a hole.
            AliasMethod::SwProtected => true,
            AliasMethod::Rings => program.vm.dirty_ring().is_some(),
            _ => false,
        };
        if apart || program.vm.slot_zap_all() != self.zaps_all || !wanted.is_empty() {
            return self.run_apart(&wanted, program, trace);
        }
        self.mmu_watch.watch(program);
        let result = self.carry_out(program, &mut trace.observations);
        trace.seen = self.mmu_watch.take();
        let ended = self.end_change();
        let cleared = ended.and_then(|_| self.memslots.clear(&self.fd));
        if result.is_err() || cleared.is_err() {
            self.recover();
        }
        result.and(cleared)
    }

    pub(super) fn carry_out(
        &mut self,
        program: &Program,
        observations: &mut [Option<Exit>],
    ) -> Result<(), MachineError> {
        let vm = &program.vm;
        let (maxphyaddr, alias_method) = (self.fingerprint.maxphyaddr, self.fingerprint.alias_method);
        if let Some(&bit) = vm.stolen().bits().iter().find(|&&bit| bit >= maxphyaddr) {
            return Err(MachineError::StolenBit { bit, maxphyaddr });
        }
        if !vm.stolen().bits().iter().all(|bit| self.stealable.contains(bit)) {
            let known = program.ops.iter().zip(observations).filter(|(op, _)| supports(vm, op, alias_method));
            known.for_each(|(_, observation)| *observation = Some(Exit::Unsupported));
            return Ok(());
        }
        let (mut host, mut model) = (Host::new(vm), Model::new(vm));
        self.begin(vm, &host)?;
        self.mmu_watch.begin()?;
        self.watchdog.arm().doing("arm the watchdog")?;
        let mut next = 0;
        while let Some(op) = program.ops.get(next) {
            let at = next;
            next += 1;
            if !supports(vm, op, alias_method) || !model.accepts(&host, op) {
                continue;
            }
            if self.is_for_the_local_apic(vm, op) {
                observations[at] = Some(Exit::Unsupported);
                continue;
            }
            if let Op::Access { vcpu, gpa, access } = *op {
                // Whether later ops are accepted depends on memslots alone, so the model need not wait for the
                // result.
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
                Op::Slot { id, .. } if id.is_internal() => self.internal_slot(vm, &host, id)?,
                _ => true,
            };
            if !done {
                observations[at] = Some(Exit::Unsupported);
                continue;
            }
            host.apply(op);
            let exit = self.carry_out_op(vm, &host, op)?;
            observations[at] = Some(exit);
            self.look(vm, at)?;
            if exit != Exit::Unsupported || !matches!(op, Op::SlotBegin { .. }) {
                model.step(&host, op, &Exit::Done);
            }
        }
        self.run_batches(vm, observations)?;
        self.watchdog.disarm();
        observations.iter().rposition(Option::is_some).map_or(Ok(()), |last| self.look_at_keys(vm, last))
    }

    /// Resets the machine to a new VM.
    pub(super) fn begin(&mut self, vm: &VmConfig, host: &Host) -> Result<(), MachineError> {
        self.memslots.begin(vm, self.fingerprint.alias_method);
        self.batches.clear();
        put_back(&self.memory, 0, HOST_PAGES).doing("put host pages back")?;
        for page in 0..HOST_PAGES {
            let pfn = host.pfn(HostPage::new(page as u64));
            if self.stamps[page] != pfn {
                self.stamp(page, pfn);
            }
        }
        let same = |old: &VmConfig| old.stolen() == vm.stolen() && old.base() == vm.base();
        self.window = match self.windows.iter().position(same) {
            Some(window) => window,
            None => self.show(vm)?,
        };
        self.use_up_rings(vm)
    }

    /// Maps the frames of `vm` for the guest, and returns their window. KVM does not notice writes to page
    /// tables from user space. So when all windows are used, the memslot of the page tables is deleted, which
    /// zaps their shadow, and CR3 changes.
    fn show(&mut self, vm: &VmConfig) -> Result<usize, MachineError> {
        if self.windows.len() == layout::WINDOWS {
            self.windows.clear();
            for space in self.fingerprint.alias_method.address_spaces() {
                let slot = space.slot(TABLE_SLOT);
                delete_region(&self.fd, slot).doing("delete the memslot of the page tables")?;
                map_whole(&self.fd, &self.tables, slot, layout::TABLE_GFN)?;
            }
            self.tables_written += 1;
        }
        let window = self.windows.len();
        names::write_window(&self.tables, window, vm, self.fingerprint.alias_method);
        self.windows.push(*vm);
        Ok(window)
    }

    /// Makes `KVM_RUN` return regularly, so that this thread can check on its vCPUs.
    pub(super) fn rouse(&mut self) -> Result<(), MachineError> {
        self.watchdog.rouse().doing("rouse the machine from its vCPUs")
    }

    /// Cleans up after a failure, as far as possible.
    pub(super) fn recover(&mut self) {
        self.watchdog.disarm();
        self.batches.clear();
        self.memslots.scrub(&self.fd);
        // Reclaim may have failed halfway.
        self.stamps = [Pfn::new(0); HOST_PAGES];
        for vcpu in &mut self.vcpus {
            // A vCPU that cannot be restarted fails again when it is used, and reports that.
            let _ = vcpu.restart(0);
        }
    }

    pub(super) fn stamp(&mut self, page: usize, pfn: Pfn) {
        page::stamp(&self.memory, page, pfn);
        self.stamps[page] = pfn;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::or_skip;
    use crate::guest::requests;
    use crate::host::watchdog::Watchdog;
    use crate::machine::calibration;
    use std::time::Duration;

    fn machine() -> Option<Machine> {
        or_skip(Machine::open())
    }

    #[test]
    fn a_guest_that_never_exits_is_an_error_and_the_machine_goes_on() {
        let Some(mut machine) = machine() else { return };
        let program = calibration::accesses(Some(40));
        let good = machine.run(&program).expect("a run");
        machine.watchdog = Watchdog::with_limit(Duration::from_millis(50)).expect("a watchdog");
        requests::break_code(&machine.own);
        assert!(matches!(machine.run(&program), Err(MachineError::Hung(_))));
        machine.watchdog = Watchdog::new().expect("a watchdog");
        requests::load_code(&machine.own);
        assert_eq!(machine.run(&program).expect("a run"), good);
    }

    #[test]
    fn a_guest_that_dies_is_an_error_and_the_machine_goes_on() {
        let Some(mut machine) = machine() else { return };
        let program = calibration::accesses(Some(40));
        let good = machine.run(&program).expect("a run");
        requests::crash_code(&machine.own);
        assert!(matches!(machine.run(&program), Err(MachineError::Exit(_))));
        requests::load_code(&machine.own);
        assert_eq!(machine.run(&program).expect("a run"), good);
    }

    /// A machine keeps track of pages with `PROT_NONE` for its own memory. A program that has a machine of its
    /// own does not affect the other machine.
    #[test]
    fn an_inaccessible_page_is_that_of_its_own_machine() {
        let Some(mut machine) = or_skip(Machine::open_with(AliasMethod::Rings)) else { return };
        let program = |ring: &str, take: &str| {
            let text = format!(
                "gpafuzz-program 1\nvm stolen=40 vcpus=1 base=0x1e0 flush=works{ring}\n\
                 slot 0 create gfn=0x1e0 pages=2 hva=0 log-dirty\n{take}v0 write 0x1e0@1\nv0 write 0x1e1\n"
            );
            gpa_model::text::parse(&text).expect("a program")
        };
        let mut run = |ring: &str, take: &str| {
            let trace = machine.run(&program(ring, take)).expect("a run");
            trace.observations[trace.observations.len() - 2..].to_vec()
        };
        let pages = [1, 2].map(|page| Some(Exit::Memory(Pfn::new(page))));
        for ring in [" dirty-ring=4", "", " dirty-ring=4", ""] {
            assert_eq!(run(ring, "prot-none hva=0 pages=1\n"), [Some(Exit::Error), pages[1]], "{ring}");
        }
        for ring in ["", " dirty-ring=4"] {
            assert_eq!(run(ring, ""), pages, "{ring}");
        }
    }

    /// The positive control of identities: a page with an identity that the model does not expect is reported
    /// with that identity.
    #[test]
    fn a_page_with_another_identity_is_noticed_by_every_kind_of_access() {
        let Some(mut machine) = machine() else { return };
        let text = "gpafuzz-program 1\nvm stolen=40 vcpus=1 base=0x1e0 flush=works\n\
                    slot 0 create gfn=0x1e0 pages=1 hva=3\nv0 read 0x1e0\nv0 write 0x1e0@1\nv0 execute 0x1e0@1\n";
        let program = gpa_model::text::parse(text).expect("a program");
        // The machine does not know of this stamp.
        page::stamp(&machine.memory, 3, Pfn::new(777));
        let trace = machine.run(&program).expect("a run");
        assert_eq!(trace.observations[1..], [Some(Exit::Memory(Pfn::new(777))); 3]);
    }
}
