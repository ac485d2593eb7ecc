//! The dirty log: marking a page, and reading and clearing the bitmap of a memslot.

use crate::host::TlbFlush;
use crate::memslots::dirty_ring::DirtyGfn;
use crate::memslots::page_set::PageSet;
use crate::memslots::slots::{Memslot, Memslots};
use crate::policy::{HasPolicy, Policy};
use crate::second_stage::SecondStage;
use crate::second_stage::flush::FlushOwed;
use crate::tables::spte::Format;
use gpa_model::{Alias, FrameSet, Gfn, SlotId};

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Marks `gfn` dirty, because `vcpu` can now write it through `alias` (`mark_page_dirty_in_slot()`).
    pub(crate) fn mark_dirty(&self, slots: &Memslots, vcpu: u8, gfn: Gfn, alias: Alias) {
        let Some(slot) = slots.find(gfn).filter(|slot| slot.flags.log_dirty) else { return };
        if let Some(size) = self.vm.dirty_ring() {
            if let Some(offset) = self.policy().listed_gfn(gfn, alias).offset_from(slot.gfn) {
                self.rings[usize::from(vcpu)].lock().push(size, DirtyGfn { slot: slot.id, offset });
            }
        } else if let Some(page) = gfn.offset_from(slot.gfn) {
            slot.dirty.insert(page);
        }
    }

    /// `KVM_GET_DIRTY_LOG`: the dirty frames of the window.
    pub fn dirty_frames(&self, id: SlotId) -> FrameSet {
        let slots = self.slots.read();
        slots.get(id).map_or(FrameSet::EMPTY, |slot| self.frames_of_pages(slot, &slot.dirty))
    }

    /// The frames of the window that `pages` of `slot` stand for.
    pub(crate) fn frames_of_pages(&self, slot: &Memslot, pages: &PageSet) -> FrameSet {
        let frames = pages.iter().map(|page| self.vm.frames(slot.gfn.add(page), 1));
        frames.fold(FrameSet::EMPTY, FrameSet::union)
    }

    /// `KVM_CLEAR_DIRTY_LOG`: clears the dirty pages in the range, and makes the next write to each be noticed.
    pub fn clear_dirty_log(&self, id: SlotId, first: Gfn, pages: u64, tlb: &mut dyn TlbFlush) {
        let slots = self.slots.read();
        let Some(slot) = slots.get(id) else { return };
        let (gfn, slot_pages) = (slot.gfn, slot.pages);
        let Some(offset) = first.offset_from(gfn) else { return };
        let mmu = self.mmu_lock.lock();
        let mut owed = FlushOwed::nothing();
        for page in slot.dirty.take(offset, self.policy().cleared(pages)) {
            self.expect_writes(&mmu, gfn.add(page), 1, &mut owed);
        }
        owed.range(self.policy(), self.vm.stolen(), gfn, slot_pages, tlb);
    }

    /// Logging was switched on: the next write to each page must be noticed.
    pub(crate) fn expect_writes_to_slot(&self, id: SlotId, tlb: &mut dyn TlbFlush) {
        let slots = self.slots.read();
        let Some(slot) = slots.get(id) else { return };
        let mmu = self.mmu_lock.lock();
        let mut owed = FlushOwed::nothing();
        self.expect_writes(&mmu, slot.gfn, slot.pages, &mut owed);
        owed.range(self.policy(), self.vm.stolen(), slot.gfn, slot.pages, tlb);
    }
}
