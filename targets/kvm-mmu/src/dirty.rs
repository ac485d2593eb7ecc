//! Dirty logging by write-protection: the bitmap of a slot, and taking the right to write from every alias of a gfn.

use crate::adapter::KvmMmu;
use crate::flush::FlushOwed;
use crate::policy::Policy;
use gpa_model::{FlushBackend, Gfn, SlotId};
use smallvec::SmallVec;

/// One bit for each page of a slot.
#[derive(Clone, Debug, Default)]
pub(crate) struct DirtyBitmap(SmallVec<[u64; 1]>);

const WORD: u64 = u64::BITS as u64;

impl DirtyBitmap {
    pub(crate) fn new(pages: u64) -> Self {
        Self(SmallVec::from_elem(0, pages.div_ceil(WORD) as usize))
    }

    pub(crate) fn set(&mut self, page: u64) {
        if let Some(word) = self.0.get_mut((page / WORD) as usize) {
            *word |= 1 << (page % WORD);
        }
    }

    /// Clear one bit and tell what it was.
    pub(crate) fn take(&mut self, page: u64) -> bool {
        let bit = 1 << (page % WORD);
        self.0.get_mut((page / WORD) as usize).is_some_and(|word| {
            let was = *word & bit != 0;
            *word &= !bit;
            was
        })
    }

    /// The pages whose bits are set, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> {
        let words = self.0.iter().enumerate();
        words.flat_map(|(i, &word)| {
            (0..WORD).filter(move |bit| word >> bit & 1 != 0).map(move |bit| i as u64 * WORD + bit)
        })
    }
}

impl<P: Policy> KvmMmu<P> {
    /// The guest may write `gfn` from now on (`mark_page_dirty_in_slot()`).
    pub(crate) fn mark_dirty(&mut self, gfn: Gfn) {
        if let Some(slot) = self.slots.find_mut(gfn)
            && slot.flags.log_dirty
            && let Some(page) = gfn.offset_from(slot.gfn)
        {
            slot.dirty.set(page);
        }
    }

    /// Take the right to write `gfn` from its SPTEs, under every alias (`rmap_write_protect()`). If `lasting`, fast page
    /// faults cannot give it back.
    pub(crate) fn write_protect(&mut self, gfn: Gfn, lasting: bool, owed: &mut FlushOwed) {
        let chain = self.rmap.chain(gfn);
        for &at in &chain[..P::write_protected(chain.len())] {
            let entry = self.shadow_pages.get(at);
            if entry.is_writable() {
                owed.owe();
            }
            self.shadow_pages.set(at, entry.write_protected(lasting));
        }
    }

    /// `KVM_CLEAR_DIRTY_LOG`: forget the pages that are dirty and write-protect them.
    pub(crate) fn clear_dirty_log(&mut self, id: SlotId, first: Gfn, pages: u64, tlb: &mut FlushBackend) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        let (gfn, slot_pages) = (slot.gfn, slot.pages);
        let Some(offset) = first.offset_from(gfn) else { return };
        let mut cleared: SmallVec<[Gfn; 64]> = SmallVec::new();
        for page in offset..offset + P::cleared(pages) {
            if slot.dirty.take(page) {
                cleared.push(gfn.add(page));
            }
        }
        let mut owed = FlushOwed::nothing();
        for gfn in cleared {
            self.write_protect(gfn, false, &mut owed);
        }
        owed.range::<P>(self.vm.stolen(), gfn, slot_pages, tlb);
    }

    /// Logging was switched on: every write from now on must fault once.
    pub(crate) fn write_protect_slot(&mut self, id: SlotId, tlb: &mut FlushBackend) {
        let Some(slot) = self.slots.get(id) else { return };
        let (first, pages, gfns) = (slot.gfn, slot.pages, slot.gfns());
        let mut owed = FlushOwed::nothing();
        for gfn in gfns {
            self.write_protect(gfn, false, &mut owed);
        }
        owed.range::<P>(self.vm.stolen(), first, pages, tlb);
    }
}
