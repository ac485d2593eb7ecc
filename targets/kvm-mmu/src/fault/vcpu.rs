//! The accesses of a vCPU: a walk as the processor does it, a fault if the walk fails, and re-entry.

use crate::fault::{FaultIn, PageFault, Resolved, Wait};
use crate::host::{HostPages, TlbFlush};
use crate::memslots::slots::Memslots;
use crate::policy::{Family, HasPolicy, Mistake, Policy};
use crate::second_stage::SecondStage;
use crate::tables::spte::{Entry, Format};
use crate::tables::tdp_iter::TdpIter;
use gpa_model::{Access, Exit, Gpa, Rights};

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// An access of the guest on `vcpu`, with the fault that it may need.
    pub fn access(&self, host: &dyn HostPages, tlb: &mut dyn TlbFlush, vcpu: u8, gpa: Gpa, access: Access) -> Exit {
        let slots = self.slots.read();
        match self.access_up_to_map(host, &slots, vcpu, gpa, access) {
            Ok(fault) => self.map_and_reenter(host, &slots, tlb, &fault, access),
            Err(exit) => exit,
        }
    }

    /// The part of an access before the `mmu_lock`. Returns the exit of an access that ends without a mapping.
    pub(crate) fn access_up_to_map(
        &self,
        host: &dyn HostPages,
        slots: &Memslots,
        vcpu: u8,
        gpa: Gpa,
        access: Access,
    ) -> Result<PageFault, Exit> {
        if let Some(exit) = self.hardware_walk(slots, vcpu, gpa, access) {
            return Err(exit);
        }
        match self.fault_in(host, slots, vcpu, (gpa, access), Wait::Async) {
            FaultIn::NoSlot | FaultIn::Emulate if self.plants(Mistake::MmioOtherAlias) => {
                let stolen = self.vm.stolen();
                Err(Exit::Mmio(stolen.join(stolen.split(gpa).0, stolen.alias(stolen.alias_count() - 1))))
            }
            FaultIn::NoSlot | FaultIn::Emulate => Err(Exit::Mmio(gpa)),
            FaultIn::Async(exit) => Err(exit),
            FaultIn::Error => Err(Exit::Error),
            FaultIn::MemoryFault => Err(Exit::MemoryFault),
            FaultIn::Retry => Err(Exit::Retry),
            FaultIn::Write(pfn) => Err(Exit::Emulated(pfn)),
            FaultIn::Fixed => Err(self.reenter(slots, vcpu, gpa, access)),
            FaultIn::Map(fault) => Ok(fault),
        }
    }

    /// A page walk by the processor, which sets the accessed bit and, on a write, the dirty bit. Returns `None` if it
    /// faults. An MMIO entry exits without a look at the memslots, as long as their generation is that of the entry.
    fn hardware_walk(&self, slots: &Memslots, vcpu: u8, gpa: Gpa, access: Access) -> Option<Exit> {
        let at = self.tables.leaf(gpa)?;
        loop {
            let entry = self.tables.get(at);
            if let Some(generation) = entry.mmio_generation() {
                let current = self.policy().mmio_is_current(generation, slots.generation(), slots.in_flux());
                if self.policy().family() == Family::Tdp && self.tdp_get_walk(gpa).is_none_or(|found| found != entry) {
                    // The entry was removed after the processor read it: the guest faults again
                    // (`handle_mmio_page_fault()`).
                    return Some(Exit::Retry);
                }
                return current.then_some(Exit::Mmio(gpa));
            }
            if !entry.rights().contains(Rights::needed(access)) {
                return None;
            }
            let dirties = access == Access::Write && !entry.is_dirty();
            let walked = if dirties { entry.accessed().dirtied() } else { entry.accessed() };
            if self.tables.replace(at, entry, walked) {
                if dirties {
                    self.log_write(vcpu, gpa);
                }
                return Some(Exit::Memory(entry.pfn_at(gpa, at.level)));
            }
        }
    }

    /// The entry that a software walk for `gpa` ends at (`kvm_tdp_mmu_get_walk()`).
    pub(crate) fn tdp_get_walk(&self, gpa: Gpa) -> Option<Entry<F>> {
        let (gfn, alias) = self.policy().walk_key(self.tables.direct_bits(), gpa);
        let root = self.tables.root_of(gpa);
        TdpIter::new(&self.tables, root, alias, gfn, 1).last().map(|(_, entry)| entry)
    }

    /// Re-enters the guest after a fault. If the entry is gone again, the guest faults again.
    fn reenter(&self, slots: &Memslots, vcpu: u8, gpa: Gpa, access: Access) -> Exit {
        self.hardware_walk(slots, vcpu, gpa, access).unwrap_or(Exit::Retry)
    }

    pub(crate) fn map_and_reenter(
        &self,
        host: &dyn HostPages,
        slots: &Memslots,
        tlb: &mut dyn TlbFlush,
        fault: &PageFault,
        access: Access,
    ) -> Exit {
        match self.map(host, slots, tlb, fault) {
            Resolved::Fixed => self.reenter(slots, fault.vcpu, fault.gpa(), access),
            Resolved::Write => Exit::Emulated(fault.pfn()),
            Resolved::Retry => Exit::Retry,
        }
    }

    /// Maps `gpa` without an access (`kvm_arch_vcpu_pre_fault_memory()`). A present mapping is left as it is.
    pub fn prefault(&self, host: &dyn HostPages, tlb: &mut dyn TlbFlush, vcpu: u8, gpa: Gpa) -> Exit {
        let slots = self.slots.read();
        if self.policy().refuses_aliased_prefault() && self.vm.stolen().taints(gpa.page()) {
            return Exit::Refused;
        }
        let gpa = self.address_of_kind(self.policy().prefaulted(self.vm.stolen(), gpa));
        if self.tables.walk(gpa).is_some() {
            return Exit::Done;
        }
        match self.fault_in(host, &slots, vcpu, (gpa, Access::Read), Wait::Sleep) {
            FaultIn::NoSlot | FaultIn::Emulate => Exit::NotFound,
            FaultIn::Async(exit) => exit,
            FaultIn::Error | FaultIn::MemoryFault => Exit::Error,
            FaultIn::Retry => Exit::Retry,
            FaultIn::Fixed | FaultIn::Write(_) => Exit::Done,
            FaultIn::Map(fault) => match self.map(host, &slots, tlb, &fault) {
                Resolved::Fixed | Resolved::Write => Exit::Done,
                Resolved::Retry => Exit::Retry,
            },
        }
    }
}
