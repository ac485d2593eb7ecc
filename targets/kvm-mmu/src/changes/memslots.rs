//! Memslot changes (`kvm_set_memory_region()`), in two halves between which the memslot is INVALID.

use crate::host::TlbFlush;
use crate::memslots::page_set::PageSet;
use crate::memslots::slots::{Memslot, Memslots, SlotError};
use crate::policy::{Family, HasPolicy, Mistake, Policy};
use crate::second_stage::SecondStage;
use crate::second_stage::flush::FlushOwed;
use crate::tables::roots::GfnFilter;
use crate::tables::spte::Format;
use gpa_model::{SlotChange, SlotId, StolenMask};

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Makes a whole memslot change (`kvm_set_memory_region()`). Changes take turns.
    ///
    /// # Errors
    /// A [`SlotError`] if the memslots do not allow the change. Nothing has changed then.
    pub fn set_memslot(&self, id: SlotId, change: SlotChange, tlb: &mut dyn TlbFlush) -> Result<(), SlotError> {
        let _slots_lock = self.slots_lock.lock();
        self.slot_begin(id, change, tlb)?;
        self.slot_end(id, change, tlb);
        Ok(())
    }

    /// The first half of a change (`kvm_invalidate_memslot()`, or the swap of a flags-only change).
    pub(crate) fn slot_begin(&self, id: SlotId, change: SlotChange, tlb: &mut dyn TlbFlush) -> Result<(), SlotError> {
        let mut slots = self.slots.write();
        let refused = if self.policy().refuses_aliased_slots() { self.vm.stolen() } else { StolenMask::NONE };
        slots.check(refused, id, change)?;
        self.next_generation(&mut slots, true);
        let Some(slot) = slots.get_mut(id) else { return Ok(()) };
        match change {
            SlotChange::Flags(flags) if flags.readonly == slot.flags.readonly => slot.set_flags(flags),
            _ => slot.invalid = true,
        }
        let invalid = slot.invalid;
        // Without the lock faults can run: they find the memslot INVALID and retry.
        drop(slots);
        if invalid {
            self.zap_slot(id, &change, tlb);
        }
        Ok(())
    }

    fn zap_slot(&self, id: SlotId, change: &SlotChange, tlb: &mut dyn TlbFlush) {
        let slots = self.slots.read();
        let Some(slot) = slots.get(id).filter(|_| self.policy().zaps_for(change)) else { return };
        let mut mmu = self.mmu_lock.lock();
        let mut owed = FlushOwed::nothing();
        match self.policy().family() {
            Family::Rmap if self.vm.slot_zap_all() => self.zap_all_fast(&mut mmu, &mut owed),
            Family::Rmap => self.zap_gfns(&mut mmu, slot.gfn, slot.pages, GfnFilter::All, &mut owed),
            Family::Tdp => self.tdp_zap_slot(&mut mmu, slot, &mut owed),
        }
        owed.all(self.policy(), tlb);
        self.retire_tables_in(&mut mmu, &slots, slot, tlb);
    }

    /// The memslots and their generation change together, under the lock. When the generation wraps, old MMIO entries
    /// must not become current again (`kvm_mmu_invalidate_mmio_sptes()`).
    fn next_generation(&self, slots: &mut Memslots, in_flux: bool) {
        if slots.next_generation(in_flux) && !self.plants(Mistake::MmioWrapIgnored) {
            self.mmu_lock.lock().shadow_pages.drop_mmio(&self.tables);
        }
    }

    /// The second half of a change (`kvm_commit_memory_region()`).
    pub(crate) fn slot_end(&self, id: SlotId, change: SlotChange, tlb: &mut dyn TlbFlush) {
        match self.policy().family() {
            Family::Rmap => self.zap_obsolete_pages(tlb),
            Family::Tdp => self.tdp_zap_retired_roots(tlb),
        }
        let mut slots = self.slots.write();
        self.next_generation(&mut slots, false);
        match (change, slots.get_mut(id)) {
            (SlotChange::Create { gfn, pages, hva, flags }, _) => {
                slots.insert(Memslot::new(id, gfn, u64::from(pages), hva, flags));
            }
            (SlotChange::Delete, _) => slots.remove(id),
            (SlotChange::Move { gfn }, Some(slot)) => {
                slot.gfn = gfn;
                slot.invalid = false;
                slot.tracked = PageSet::default();
            }
            (SlotChange::Flags(flags), Some(slot)) if slot.invalid => {
                slot.set_flags(flags);
                slot.tracked = PageSet::default();
                slot.invalid = false;
            }
            (SlotChange::Flags(flags), _) if flags.log_dirty => {
                drop(slots);
                self.expect_writes_to_slot(id, tlb);
            }
            (SlotChange::Flags(_), Some(slot)) => {
                let (first, pages) = (slot.gfn, slot.pages);
                drop(slots);
                self.zap_collapsible(id, first, pages, tlb);
            }
            (SlotChange::Move { .. } | SlotChange::Flags(_), None) => {}
        }
    }
}
