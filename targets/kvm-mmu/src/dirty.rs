//! Dirty logging: marking pages, and making sure that the next write through any alias is noticed, by write-protection or
//! by dirty bits that the processor logs (PML).

use crate::dirty_ring::DirtyGfn;
use crate::flush::{FlushOwed, TlbFlush};
use crate::memslots::Memslots;
use crate::policy::{HasPolicy, Policy};
use crate::second_stage::{Locked, SecondStage};
use crate::spte::{Entry, Format};
use gpa_model::{Alias, Gfn, Gpa, Logging, SlotId};

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// The guest may write `gfn` from now on, because of what `vcpu` did by its name `alias` (`mark_page_dirty_in_slot()`).
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

    /// Take the right to write `pages` pages from `first` from their SPTEs, under every alias (`rmap_write_protect()`). If
    /// `lasting`, fast page faults cannot give it back.
    pub(crate) fn write_protect(&self, mmu: &Locked, first: Gfn, pages: u64, lasting: bool, owed: &mut FlushOwed) {
        let left_alone = |entry: Entry<F>| self.policy().skips_readonly() && !entry.is_writable();
        let protect = |entry| if left_alone(entry) { entry } else { entry.write_protected(lasting) };
        let reached = |len| self.policy().write_protected(len);
        self.for_each_leaf(mmu, first, pages, reached, |at| {
            if self.tables.update(at, protect).is_writable() {
                self.owe(mmu, at, first, owed);
            }
        });
    }

    /// Clear the dirty bits of the SPTEs of `pages` pages, under every alias (`__rmap_clear_dirty()`). A large leaf has one for
    /// all of its pages, so it is write-protected and will be taken apart by the next write
    /// (`kvm_mmu_slot_remove_write_access()` from 2 MiB on).
    fn clear_dirty_bits(&self, mmu: &Locked, first: Gfn, pages: u64, owed: &mut FlushOwed) {
        let reached = |len| self.policy().write_protected(len);
        self.for_each_leaf(mmu, first, pages, reached, |at| {
            if at.level > 1 && self.policy().protects_large_for_pml() {
                if self.tables.update(at, |entry| entry.write_protected(false)).is_writable() {
                    self.owe(mmu, at, first, owed);
                }
            } else if self.tables.update(at, Entry::cleaned).is_dirty() {
                self.owe(mmu, at, first, owed);
            }
        });
    }

    /// Whether the processor logs writes. If it cannot, they are noticed by write-protection, whatever is asked for.
    fn logs_by_pml(&self) -> bool {
        F::PML && self.vm.logging() == Logging::Pml
    }

    /// Make the next write to each of `pages` pages show, through whatever alias.
    pub(crate) fn expect_writes(&self, mmu: &Locked, first: Gfn, pages: u64, owed: &mut FlushOwed) {
        if self.logs_by_pml() {
            self.clear_dirty_bits(mmu, first, pages, owed);
        } else {
            self.write_protect(mmu, first, pages, false, owed);
        }
    }

    /// The processor set the dirty bit of an entry and logs the address it walked, stolen bits and all.
    pub(crate) fn log_write(&self, vcpu: u8, gpa: Gpa) {
        if self.logs_by_pml() {
            self.pml.lock().push((vcpu, gpa));
        }
    }

    /// Take what the processor has logged over into bitmaps or rings (`vmx_flush_pml_buffer()`), while `running` runs or no vCPU
    /// does. Every exit does it, so nobody reads a bitmap, or moves a slot, with writes still in the buffer.
    pub(crate) fn drain_pml(&self, running: Option<u8>) {
        if self.logs_by_pml() {
            let slots = self.slots.read();
            for (vcpu, gpa) in self.pml.lock().drain(..) {
                if self.vm.dirty_ring().is_none() || self.policy().has_ring(vcpu, running) {
                    let stolen = self.vm.stolen();
                    self.mark_dirty(&slots, vcpu, self.policy().pml_gfn(stolen, gpa), stolen.split(gpa).1);
                }
            }
        }
    }

    /// `KVM_CLEAR_DIRTY_LOG`: forget the pages that are dirty and expect writes to them again.
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

    /// Logging was switched on: the next write to each page must show.
    pub(crate) fn expect_writes_to_slot(&self, id: SlotId, tlb: &mut dyn TlbFlush) {
        let slots = self.slots.read();
        let Some(slot) = slots.get(id) else { return };
        let mmu = self.mmu_lock.lock();
        let mut owed = FlushOwed::nothing();
        self.expect_writes(&mmu, slot.gfn, slot.pages, &mut owed);
        owed.range(self.policy(), self.vm.stolen(), slot.gfn, slot.pages, tlb);
    }

    /// Write-protect one frame under every alias (`kvm_mmu_slot_gfn_write_protect()`).
    pub fn write_protect_gfn(&self, gfn: Gfn, tlb: &mut dyn TlbFlush) {
        let mmu = self.mmu_lock.lock();
        let mut owed = FlushOwed::nothing();
        self.write_protect(&mmu, gfn, 1, true, &mut owed);
        owed.range(self.policy(), self.vm.stolen(), gfn, 1, tlb);
    }
}
