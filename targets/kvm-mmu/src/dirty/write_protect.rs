//! Makes the next write through any alias be noticed: by write-protection, or by clearing dirty bits.

use crate::host::TlbFlush;
use crate::policy::{HasPolicy, Mistake, Policy};
use crate::second_stage::flush::FlushOwed;
use crate::second_stage::{Locked, SecondStage};
use crate::tables::spte::{Entry, Format};
use gpa_model::Gfn;

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Makes the next write to each of `pages` gfns from `first` be noticed, through any alias.
    pub(crate) fn expect_writes(&self, mmu: &Locked, first: Gfn, pages: u64, owed: &mut FlushOwed) {
        if self.logs_by_pml() {
            self.clear_dirty_bits(mmu, first, pages, owed);
        } else {
            self.write_protect(mmu, first, pages, false, owed);
        }
    }

    /// Write-protects the SPTEs of `pages` gfns from `first` under every alias (`rmap_write_protect()`). If `lasting`,
    /// fast page faults cannot make them writable again.
    pub(crate) fn write_protect(&self, mmu: &Locked, first: Gfn, pages: u64, lasting: bool, owed: &mut FlushOwed) {
        let left_alone = |entry: Entry<F>| self.plants(Mistake::WriteProtectSkipsReadonly) && !entry.is_writable();
        let protect = |entry| if left_alone(entry) { entry } else { entry.write_protected(lasting) };
        let reached = |len| self.policy().write_protected(len);
        self.for_each_leaf(mmu, first, pages, reached, |at| {
            if self.tables.update(at, protect).is_writable() {
                self.owe(mmu, at, first, owed);
            }
        });
    }

    /// Clears the dirty bits of the SPTEs of `pages` gfns from `first` under every alias (`__rmap_clear_dirty()`). A
    /// large leaf has one dirty bit for all of its pages, so it is write-protected instead, and the next write splits
    /// it (`kvm_mmu_slot_remove_write_access()` from 2 MiB on).
    fn clear_dirty_bits(&self, mmu: &Locked, first: Gfn, pages: u64, owed: &mut FlushOwed) {
        let reached = |len| self.policy().write_protected(len);
        self.for_each_leaf(mmu, first, pages, reached, |at| {
            if at.level > 1 && !self.plants(Mistake::PmlOnLarge) {
                if self.tables.update(at, |entry| entry.write_protected(false)).is_writable() {
                    self.owe(mmu, at, first, owed);
                }
            } else if self.tables.update(at, Entry::cleaned).is_dirty() {
                self.owe(mmu, at, first, owed);
            }
        });
    }

    /// Write-protects one gfn under every alias (`kvm_mmu_slot_gfn_write_protect()`).
    pub fn write_protect_gfn(&self, gfn: Gfn, tlb: &mut dyn TlbFlush) {
        let mmu = self.mmu_lock.lock();
        let mut owed = FlushOwed::nothing();
        self.write_protect(&mmu, gfn, 1, true, &mut owed);
        owed.range(self.policy(), self.vm.stolen(), gfn, 1, tlb);
    }
}
