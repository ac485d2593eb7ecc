//! The part of a fault before the `mmu_lock`: memslot and page (`kvm_faultin_pfn()`).

use crate::fault::{FaultIn, PageFault, Wait};
use crate::host::{HostPages, PfnError};
use crate::memslots::slots::Memslots;
use crate::policy::{AliasFault, HasPolicy, Mistake, Policy, SlotSeen};
use crate::second_stage::SecondStage;
use crate::tables::spte::Format;
use gpa_model::{Access, Gpa, Rights};

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Runs a fault up to the `mmu_lock` (`direct_page_fault()`, `kvm_faultin_pfn()`).
    pub(crate) fn fault_in(
        &self,
        host: &dyn HostPages,
        slots: &Memslots,
        vcpu: u8,
        (gpa, access): (Gpa, Access),
        wait: Wait,
    ) -> FaultIn {
        let stolen = self.vm.stolen();
        let gfn = self.policy().unalias(stolen, gpa);
        let alias = self.policy().alias_of(stolen, gpa);
        if self.fast_page_fault(slots, vcpu, (gpa, gfn, alias), access) {
            return FaultIn::Fixed;
        }
        let found = self.look_up(host, slots, vcpu, (gpa, access), wait);
        if matches!(found, FaultIn::NoSlot) {
            self.cache_mmio(slots, gpa, gfn, alias);
        }
        found
    }

    /// Looks up the memslot and the page of a fault (`kvm_faultin_pfn()`).
    pub(crate) fn look_up(
        &self,
        host: &dyn HostPages,
        slots: &Memslots,
        vcpu: u8,
        (gpa, access): (Gpa, Access),
        wait: Wait,
    ) -> FaultIn {
        let stolen = self.vm.stolen();
        let gfn = self.policy().unalias(stolen, gpa);
        let alias = self.policy().alias_of(stolen, gpa);
        let (mmu_seq, slots_generation) = (self.policy().snapshot(self.notifier.mmu_seq()), slots.generation());
        let slot = slots.find(self.policy().slot_gfn(stolen, gpa));
        if let Some(outcome) = self.wrong_kind(gfn, alias, slot.is_some()) {
            return outcome;
        }
        let seen = slot.map(|slot| SlotSeen { id: slot.id, invalid: slot.invalid });
        match self.policy().fault_in(stolen.split(gpa).1, seen) {
            AliasFault::NoSlot => return FaultIn::NoSlot,
            AliasFault::Retry => return FaultIn::Retry,
            AliasFault::Proceed => {}
        }
        let Some((slot, hva)) = slot.and_then(|slot| Some((slot, slot.hva_of(gfn)?))) else { return FaultIn::Emulate };
        if slot.flags.readonly && access == Access::Write {
            return FaultIn::Emulate;
        }
        let host_writable = !slot.flags.readonly;
        let rights = if host_writable { Rights::RWX } else { Rights::RX };
        if access == Access::Write && self.is_tracked(slot, gfn, alias) {
            let Ok(pfn) = host.pfn(hva) else { return self.no_page() };
            self.mark_dirty(slots, vcpu, self.policy().dirty_key(gfn, alias), alias);
            host.release(pfn);
            return FaultIn::Write(pfn);
        }
        let mut page = self.pfn_of_kind(host, alias, hva);
        if page == Err(PfnError::NeedsIo) {
            if wait == Wait::Async
                && let Some(waiting) = self.setup_async_pf(vcpu, (gpa, gfn), access, hva)
            {
                return waiting;
            }
            page = host.pfn(hva);
            if let (Ok(pfn), true) = (page, self.plants(Mistake::ReadInNotHeld)) {
                host.release(pfn);
            }
        }
        let Ok(pfn) = page else { return self.no_page() };
        if self.plants(Mistake::ReleasedBeforeMapped) {
            host.release(pfn);
        }
        let host_level = self.level_of_kind(host, alias, hva);
        FaultIn::Map(PageFault {
            vcpu,
            gpa,
            access,
            gfn,
            alias,
            hva,
            pfn,
            host_level,
            rights,
            host_writable,
            mmu_seq,
            slots_generation,
        })
    }

    /// The outcome of a fault whose page cannot be had.
    fn no_page(&self) -> FaultIn {
        if self.plants(Mistake::NoPageIsNoSlot) { FaultIn::NoSlot } else { FaultIn::Error }
    }
}
