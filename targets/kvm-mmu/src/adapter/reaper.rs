//! What user space does with dirty rings: it keeps a bitmap for each memslot, and resets the rings when it clears
//! pages.

use crate::host::TlbFlush;
use crate::memslots::dirty_ring::DirtyGfn;
use crate::memslots::page_set::PageSet;
use crate::policy::HasPolicy;
use crate::second_stage::SecondStage;
use crate::tables::spte::Format;
use gpa_model::limits::{SLOTS, VCPUS};
use gpa_model::{FrameSet, Gfn, GfnIndexed, SlotChange, SlotId};

/// One bitmap for each memslot.
#[derive(Debug, Default)]
pub(crate) struct Reaper {
    dirty: [PageSet; SLOTS],
}

impl Reaper {
    pub(crate) fn clear(&mut self) {
        self.dirty = Default::default();
    }

    /// Harvests the rings of all vCPUs.
    fn reap<P: HasPolicy, F: Format>(&self, mmu: &SecondStage<P, F>) {
        for vcpu in 0..VCPUS as u8 {
            mmu.harvest_dirty_ring(vcpu, |DirtyGfn { slot, offset }| self.dirty[slot.index()].insert(offset));
        }
    }

    /// The dirty frames of memslot `id`.
    pub(crate) fn dirty_frames<P: HasPolicy, F: Format>(&self, mmu: &SecondStage<P, F>, id: SlotId) -> FrameSet {
        self.reap(mmu);
        let slots = mmu.slots.read();
        slots.get(id).map_or(FrameSet::EMPTY, |slot| mmu.frames_of_pages(slot, &self.dirty[id.index()]))
    }

    /// Clears the pages, as `KVM_CLEAR_DIRTY_LOG` would. A reset covers whole rings, so the other entries are moved to
    /// the bitmaps first.
    pub(crate) fn forget<P: HasPolicy, F: Format>(
        &self,
        mmu: &SecondStage<P, F>,
        (id, first, pages): (SlotId, Gfn, u64),
        tlb: &mut dyn TlbFlush,
    ) {
        self.reap(mmu);
        mmu.reset_dirty_rings(tlb);
        if let Some(offset) = mmu.slots.read().get(id).and_then(|slot| first.offset_from(slot.gfn)) {
            let _forgotten = self.dirty[id.index()].take(offset, pages);
        }
    }

    /// Call before the memslot changes. Entries still in the rings belong to the old memslot; only a move keeps its
    /// bitmap.
    pub(crate) fn memslot_changes<P: HasPolicy, F: Format>(
        &mut self,
        mmu: &SecondStage<P, F>,
        id: SlotId,
        change: SlotChange,
    ) {
        if mmu.vm.dirty_ring().is_some() {
            self.reap(mmu);
            if !matches!(change, SlotChange::Move { .. }) {
                self.dirty[id.index()] = PageSet::default();
            }
        }
    }

    /// Reports the pages that are kept by gfn, in bitmaps and rings.
    pub(crate) fn inspect<P: HasPolicy, F: Format>(&self, mmu: &SecondStage<P, F>, visit: &mut dyn FnMut(GfnIndexed)) {
        for slot in mmu.slots.read().iter() {
            let mut listed = |page| visit(GfnIndexed::DirtyLog(slot.gfn.add(page).raw()));
            self.dirty[slot.id.index()].iter().for_each(&mut listed);
            for ring in &mmu.rings {
                let ring = ring.lock();
                ring.pending().filter(|entry| entry.slot == slot.id).for_each(|entry| listed(entry.offset));
            }
        }
    }
}
