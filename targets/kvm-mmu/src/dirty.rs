//! Dirty logging: marking pages, and making sure that the next write through any alias is noticed, by write-protection or
//! by dirty bits that the processor logs (PML).

use crate::adapter::KvmMmu;
use crate::flush::FlushOwed;
use crate::policy::Policy;
use gpa_model::{FlushBackend, Gfn, Gpa, Logging, SlotId};
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

    /// Clear the dirty bits of `gfn`'s SPTEs, under every alias (`__rmap_clear_dirty()`).
    fn clear_dirty_bits(&mut self, gfn: Gfn, owed: &mut FlushOwed) {
        let chain = self.rmap.chain(gfn);
        for &at in &chain[..P::write_protected(chain.len())] {
            let entry = self.shadow_pages.get(at);
            if entry.is_dirty() {
                owed.owe();
            }
            self.shadow_pages.set(at, entry.cleaned());
        }
    }

    /// Make the next write to `gfn` show, through whatever alias.
    fn expect_write(&mut self, gfn: Gfn, owed: &mut FlushOwed) {
        match self.vm.logging() {
            Logging::WriteProtect => self.write_protect(gfn, false, owed),
            Logging::Pml => self.clear_dirty_bits(gfn, owed),
        }
    }

    /// The processor set the dirty bit of an entry and logs the address it walked, stolen bits and all.
    pub(crate) fn log_write(&mut self, gpa: Gpa) {
        if self.vm.logging() == Logging::Pml {
            self.pml.push(gpa);
        }
    }

    /// Take what the processor has logged over into the bitmaps (`vmx_flush_pml_buffer()`). Every exit does it, so nobody
    /// reads a bitmap, or moves a slot, with writes still in the buffer.
    pub(crate) fn drain_pml(&mut self) {
        let mut pml = std::mem::take(&mut self.pml);
        for gpa in pml.drain(..) {
            self.mark_dirty(P::pml_gfn(self.vm.stolen(), gpa));
        }
        self.pml = pml;
    }

    /// `KVM_CLEAR_DIRTY_LOG`: forget the pages that are dirty and expect writes to them again.
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
            self.expect_write(gfn, &mut owed);
        }
        owed.range::<P>(self.vm.stolen(), gfn, slot_pages, tlb);
    }

    /// Logging was switched on: the next write to each page must show.
    pub(crate) fn expect_writes_to_slot(&mut self, id: SlotId, tlb: &mut FlushBackend) {
        let Some(slot) = self.slots.get(id) else { return };
        let (first, pages, gfns) = (slot.gfn, slot.pages, slot.gfns());
        let mut owed = FlushOwed::nothing();
        for gfn in gfns {
            self.expect_write(gfn, &mut owed);
        }
        owed.range::<P>(self.vm.stolen(), first, pages, tlb);
    }
}
