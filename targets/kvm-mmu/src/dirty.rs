//! Dirty logging by write-protection: marking pages, and taking the right to write from every alias of a gfn.

use crate::adapter::KvmMmu;
use crate::flush::FlushOwed;
use crate::policy::Policy;
use gpa_model::{FlushBackend, Gfn, SlotId};
use smallvec::SmallVec;

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
            } else if P::skips_readonly() {
                continue;
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
