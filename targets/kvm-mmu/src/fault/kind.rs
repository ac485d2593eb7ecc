//! Private and shared memory, in a VM whose stolen bit is the shared bit. The address says which kind the guest wants, the attribute
//! of the gfn says which kind there is.

use crate::fault::FaultIn;
use crate::host::{HostPages, PfnError};
use crate::policy::{HasPolicy, Mistake};
use crate::second_stage::SecondStage;
use crate::tables::spte::Format;
use gpa_model::{Alias, Gfn, Gpa, HostPage, Level, Pfn};

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Whether addresses with `alias` name private memory.
    pub(crate) fn names_private(&self, alias: Alias) -> bool {
        self.vm.shared_private() && alias.is_none()
    }

    /// The outcome of a fault that wants memory of the other kind, or private memory where there is no memslot
    /// (`kvm_mmu_faultin_pfn()`, `kvm_handle_noslot_fault()`). Call after `mmu_seq` was read: a change of the attribute after the
    /// look makes the fault stale.
    pub(crate) fn wrong_kind(&self, gfn: Gfn, alias: Alias, has_slot: bool) -> Option<FaultIn> {
        if !self.vm.shared_private() || self.plants(Mistake::KindUnchecked) {
            return None;
        }
        let private = self.names_private(alias);
        let matches = self.mmu_lock.lock().attributes.is_private(gfn) == private;
        (!matches || private && !has_slot).then_some(FaultIn::MemoryFault)
    }

    /// The page of a fault under `alias`, of the kind that the alias names.
    pub(crate) fn pfn_of_kind(&self, host: &dyn HostPages, alias: Alias, hva: HostPage) -> Result<Pfn, PfnError> {
        if self.names_private(alias) { host.private_pfn(hva) } else { host.pfn_nowait(hva) }
    }

    /// The size of the host mapping for a fault. Private pages are small (`kvm_max_private_mapping_level()`).
    pub(crate) fn level_of_kind(&self, host: &dyn HostPages, alias: Alias, hva: HostPage) -> Level {
        if self.names_private(alias) { Level::Page4K } else { host.level(hva) }
    }

    /// The address that a request to map `gpa` is for: that of the kind of memory which is there
    /// (`kvm_arch_vcpu_pre_fault_memory()`, aa2024c01a9a).
    pub(crate) fn address_of_kind(&self, gpa: Gpa) -> Gpa {
        let stolen = self.vm.stolen();
        let (gfn, alias) = stolen.split(gpa);
        if !self.names_private(alias) || self.plants(Mistake::PrefaultOtherKind) {
            return gpa;
        }
        if self.mmu_lock.lock().attributes.is_private(gfn) { gpa } else { stolen.join(gfn, stolen.alias(1)) }
    }
}
