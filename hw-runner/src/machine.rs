//! The executor: carries out programs in a VM of `/dev/kvm` and returns what was observed.
//!
//! One VM serves many programs. Each program begins without memslots and with all host pages at their first identity, and
//! ends with its memslots deleted, so earlier programs do not affect the result. Each vCPU of a program is a KVM vCPU, but
//! all of them take turns on one thread.

mod accesses;
mod calibration;
mod capabilities;
mod helper;
mod hold;
mod host_ops;
mod internal_slots;
mod mmu_watch;
mod private_memory;
mod program;
mod slot_change;
mod small_rings;
mod stress;

pub(crate) use hold::end_of_fault;
pub use stress::{StressReport, StressSummary};

use crate::error::{Doing, MachineError};
use crate::guest::vcpu::Vcpu;
use crate::guest::{layout, requests, tables};
use crate::host::memory::{Pages, shared_mappings};
use crate::host::reclaim::ReclaimTable;
use crate::host::watchdog::Watchdog;
use crate::kvm::address_space::AddressSpace;
use crate::kvm::alias_method::AliasMethod;
use crate::kvm::fingerprint::{self, Fingerprint};
use crate::kvm::guest_memfd;
use crate::kvm::ioctl::{Region, set_region, stats_file};
use crate::kvm::ioeventfd::IoeventfdSet;
use crate::kvm::memslots::{KVM_SLOTS, Memslots};
use crate::kvm::ring::{self, Ring};
use crate::kvm::stats::Stats;
use crate::kvm::witness::Witness;
use crate::trace::support::STOLEN_BITS;
use accesses::Batches;
use capabilities::{enable_local_apics, enable_manual_protect, enable_rings, zap_slots_alone};
use gpa_model::limits::{HOST_PAGES, VCPUS};
use gpa_model::{Exit, Gpa, Pfn, VmConfig};
use helper::Helper;
use internal_slots::{InternalSlot, Wanted};
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::VmFd;
use mmu_watch::MmuWatch;
use std::sync::Arc;

const OWN_SLOT: u32 = KVM_SLOTS;
const TABLE_SLOT: u32 = KVM_SLOTS + 1;
/// The first memslot number that neither programs nor the guest use.
const SPARE_SLOT: u32 = KVM_SLOTS + 2;

/// A VM of `/dev/kvm`, ready for programs. It must stay on the thread that opened it.
#[derive(Debug)]
pub struct Machine {
    // Declared, and so dropped, before the memory they use.
    vcpus: Vec<Vcpu>,
    /// The thread that waits in held faults, once there was one.
    helper: Option<Helper>,
    stats: Option<Stats>,
    fd: Arc<VmFd>,
    memory: Pages,
    /// KVM's internal memslots.
    internal_slots: Vec<InternalSlot>,
    /// Whether KVM emulates local APICs, and so answers at their address.
    has_local_apics: bool,
    reclaims: ReclaimTable,
    own: Arc<Pages>,
    tables: Pages,
    watchdog: Watchdog,
    fingerprint: Fingerprint,
    proof: Option<Proof>,
    /// The GPA bits that programs can steal.
    stealable: Vec<u8>,
    memslots: Memslots,
    /// Whether KVM zaps everything when a memslot goes. A VM is told once.
    zaps_all: bool,
    /// Entries of each vCPU's dirty ring, with dirty rings.
    ring_entries: usize,
    /// The VM whose frames each window maps.
    windows: Vec<VmConfig>,
    /// The window of the current program.
    window: usize,
    /// How often the windows were all reused.
    tables_written: u64,
    /// The identity of each host page.
    stamps: [Pfn; HOST_PAGES],
    /// The memslot change whose second half is due.
    open_change: Option<slot_change::OpenChange>,
    /// What KVM's debugfs shows of the current program.
    mmu_watch: MmuWatch,
    batches: Batches,
    ioeventfds: IoeventfdSet,
    accesses: u64,
    /// The value that the last enqueued write stores.
    values: u64,
}

/// KVM's counters before and after a known number of accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The counters before.
    pub before: Witness,
    /// The counters after.
    pub after: Witness,
}

impl Machine {
    /// Opens `/dev/kvm`, creates a VM, and finds out whether its guest runs natively. Each alias is a memslot.
    ///
    /// # Errors
    /// A [`MachineError`] if there is no usable KVM.
    pub fn open() -> Result<Self, MachineError> {
        Self::open_with(AliasMethod::default())
    }

    /// Like [`Machine::open`], with aliases made by `alias_method`.
    ///
    /// # Errors
    /// A [`MachineError`] if there is no usable KVM, or it does not offer this alias method.
    pub fn open_with(alias_method: AliasMethod) -> Result<Self, MachineError> {
        Self::open_for(alias_method, &VmConfig::default())
    }

    /// Like [`Machine::open_with`], for programs of `vm`.
    pub(crate) fn open_for(alias_method: AliasMethod, vm: &VmConfig) -> Result<Self, MachineError> {
        Self::open_as(alias_method, None, vm)
    }

    /// Opens a kernel that was told to strip the stolen bits of `vm`, for programs of `vm`. Programs find out
    /// whether it does.
    pub(crate) fn open_stripping(vm: &VmConfig) -> Result<Self, MachineError> {
        Self::open_as(AliasMethod::Native, Some(vm.stolen().bits()), vm)
    }

    fn open_as(alias_method: AliasMethod, stripped: Option<&[u8]>, vm: &VmConfig) -> Result<Self, MachineError> {
        let mut machine = Self::create(alias_method, &[], vm)?;
        if alias_method == AliasMethod::Native {
            machine.mmu_watch = MmuWatch::of(&machine.fd);
            machine.stealable = match stripped {
                Some(bits) => bits.to_vec(),
                None => machine.bits_stripped()?,
            };
        }
        // A kernel that is under test for stripping bits cannot calibrate the machine through an alias.
        let alias = machine.stealable.first().copied().filter(|_| stripped.is_none());
        machine.prove(alias)?;
        Ok(machine)
    }

    /// Creates a machine for programs of `vm`, without calibration. KVM makes those of the internal memslots
    /// `wanted` that it has. Dirty rings are small if `vm` and the processor allow it. KVM zaps everything when
    /// a memslot goes, or, unless `vm` asks for that, only the memslot's mappings.
    fn create(alias_method: AliasMethod, wanted: &[Wanted], vm: &VmConfig) -> Result<Self, MachineError> {
        let kvm = crate::kvm::ioctl::open()?;
        let protected = alias_method == AliasMethod::SwProtected;
        if protected {
            guest_memfd::require(&kvm)?;
        }
        let fd = crate::kvm::ioctl::create_vm(&kvm, if protected { guest_memfd::VM_TYPE } else { 0 })?;
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).doing("get the supported CPUID")?;
        let mut fingerprint = Fingerprint { alias_method, ..fingerprint::read(&fd, &cpuid)? };
        if !vm.slot_zap_all() && zap_slots_alone(&fd) {
            fingerprint.capabilities.push("zap-slot".into());
        }
        let memory = match alias_method.mappings() {
            1 => Pages::new(HOST_PAGES),
            mappings => Pages::shared(HOST_PAGES, mappings),
        };
        let memory = memory.doing("map memory for the guest")?;
        let huge = || Pages::huge().doing("map memory for the guest");
        let (own, tables) = (huge()?, huge()?);
        if alias_method == AliasMethod::Smm {
            AddressSpace::require_all(&fd)?;
            fingerprint.capabilities.push("smm".into());
        }
        if protected {
            guest_memfd::require_in(&fd)?;
            fingerprint.capabilities.push("guest-memfd".into());
        }
        if alias_method == AliasMethod::Ioeventfds {
            crate::kvm::ioeventfd::require(&fd)?;
            fingerprint.capabilities.push("ioeventfd-any-length".into());
        }
        let mut ring_entries = ring::AMPLE;
        if alias_method == AliasMethod::Rings {
            ring_entries = enable_rings(&fd, vm.dirty_ring().is_some())?;
            fingerprint.capabilities.push("dirty-log-ring".into());
        } else {
            enable_manual_protect(&fd)?;
        }
        fingerprint.capabilities.sort();
        requests::load_code(&own);
        tables::write_tables(&tables);
        for space in alias_method.address_spaces() {
            map_whole(&fd, &own, space.slot(OWN_SLOT), layout::OWN_GFN)?;
            map_whole(&fd, &tables, space.slot(TABLE_SLOT), layout::TABLE_GFN)?;
        }
        let has_local_apics = internal_slots::need_local_apics(wanted);
        if has_local_apics {
            enable_local_apics(&fd)?;
        }
        let mut internal_slots = internal_slots::before_vcpus(&fd, wanted)?;
        let before = shared_mappings().doing("list the mappings of this process")?;
        let mut vcpus = (0..VCPUS).map(|number| Vcpu::new(&fd, &cpuid, number)).collect::<Result<Vec<_>, _>>()?;
        internal_slots.extend(internal_slots::after_vcpus(wanted, &before)?);
        if has_local_apics {
            vcpus.iter_mut().try_for_each(Vcpu::disable_local_apic)?;
        }
        let mut memslots = Memslots::default();
        if alias_method == AliasMethod::Rings {
            let rings = vcpus.iter_mut().map(|vcpu| Ring::new(vcpu.fd(), ring_entries));
            memslots.use_rings(rings.collect::<Result<_, _>>().doing("map a dirty ring")?);
        }
        let maxphyaddr = fingerprint.maxphyaddr;
        Ok(Self {
            stats: stats_file(&fd).and_then(Stats::new).ok(),
            vcpus,
            helper: None,
            fd: Arc::new(fd),
            reclaims: ReclaimTable::probe(&memory),
            memory,
            internal_slots,
            has_local_apics,
            own: Arc::new(own),
            tables,
            watchdog: Watchdog::new().doing("set up the watchdog")?,
            fingerprint,
            proof: None,
            stealable: STOLEN_BITS.filter(|bit| *bit < maxphyaddr).collect(),
            memslots,
            zaps_all: vm.slot_zap_all(),
            ring_entries,
            windows: Vec::with_capacity(layout::WINDOWS),
            window: 0,
            tables_written: 0,
            stamps: [Pfn::new(0); HOST_PAGES],
            open_change: None,
            mmu_watch: MmuWatch::default(),
            batches: Batches::default(),
            ioeventfds: IoeventfdSet::default(),
            accesses: 0,
            values: 0,
        })
    }

    /// The GPA bits that this kernel strips: through an alias of a memslot an access finds memory.
    fn bits_stripped(&mut self) -> Result<Vec<u8>, MachineError> {
        let mut stripped = Vec::new();
        for bit in self.stealable.clone() {
            let program = calibration::one_alias(bit);
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

    /// Which KVM this is, for traces.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// The evidence whether guest accesses run natively; `None` if this kernel has no counters.
    pub fn proof(&self) -> Option<&Proof> {
        self.proof.as_ref()
    }

    /// The GPA bits that programs can steal here.
    pub fn stealable(&self) -> &[u8] {
        &self.stealable
    }

    /// The ways to reclaim pages here, and how often each was used.
    pub fn reclaims(&self) -> &ReclaimTable {
        &self.reclaims
    }

    /// The number of guest accesses so far.
    pub fn accesses(&self) -> u64 {
        self.accesses
    }

    /// KVM's counters now, summed over the vCPUs.
    pub fn witness(&self) -> Witness {
        let vcpus = self.vcpus.iter().filter_map(Vcpu::stats);
        let files: Vec<&Stats> = self.stats.iter().chain(vcpus).collect();
        Witness::read(self.accesses, self.vcpus.iter().map(Vcpu::exits).sum(), &files)
    }

    /// Makes a known number of accesses, and reads KVM's counters before and after.
    fn prove(&mut self, alias: Option<u8>) -> Result<(), MachineError> {
        let program = calibration::accesses(alias);
        let mut observations = vec![None; program.ops.len()];
        let before = self.witness();
        let result = self.carry_out(&program, &mut observations);
        // Before the memslots go: some counters are levels of what is mapped.
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
