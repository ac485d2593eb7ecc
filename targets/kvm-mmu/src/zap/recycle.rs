//! Recycling: when there are too many shadow pages, the oldest are removed. The next access maps again what they
//! mapped.
//!
//! A page is first removed from the hash and from its parents. It is reused only after the TLBs were flushed and all
//! readers without a lock are gone. The pages below it stay valid and can be found again.

use crate::host::TlbFlush;
use crate::memslots::slots::{Memslot, Memslots};
use crate::policy::{HasPolicy, Mistake, Policy};
use crate::second_stage::flush::FlushOwed;
use crate::second_stage::{Locked, SecondStage};
use crate::tables::shadow_pages::SpKey;
use crate::tables::spte::{Entry, Format};
use crate::zap::Retired;
use gpa_model::Gfn;

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Limits the number of shadow pages to `pages` (`KVM_SET_NR_MMU_PAGES`), or to the length of one path if that is
    /// more.
    pub fn set_mmu_pages(&self, pages: usize, tlb: &mut dyn TlbFlush) {
        let slots = self.slots.read();
        let mut mmu = self.mmu_lock.lock();
        mmu.shadow_pages.set_limit(pages.max(usize::from(self.tables.root_level())));
        self.make_mmu_pages_available(&mut mmu, &slots, 0, tlb);
    }

    /// Recycles until `wanted` pages can be made (`make_mmu_pages_available()`).
    pub(crate) fn make_mmu_pages_available(
        &self,
        mmu: &mut Locked,
        slots: &Memslots,
        wanted: usize,
        tlb: &mut dyn TlbFlush,
    ) {
        let mut retired = Retired::new();
        while let Some(table) = mmu.shadow_pages.to_recycle(wanted) {
            self.retire(mmu, slots, table);
            retired.push(table);
        }
        self.commit_zap(mmu, &retired, !self.plants(Mistake::RecycledUnflushed), tlb);
    }

    /// Retires the shadow pages of guest tables in `slot`, which is being deleted or moved.
    pub(crate) fn retire_tables_in(&self, mmu: &mut Locked, slots: &Memslots, slot: &Memslot, tlb: &mut dyn TlbFlush) {
        let goes = |key: &SpKey| self.policy().goes_with_slot(key) && slot.contains(key.gfn);
        let pages = mmu.shadow_pages.active();
        let retired: Retired = pages.filter(|&table| goes(mmu.shadow_pages.key(table))).collect();
        for &table in &retired {
            self.retire(mmu, slots, table);
        }
        self.commit_zap(mmu, &retired, !self.plants(Mistake::RecycledUnflushed), tlb);
    }

    /// Flushes the TLBs and frees retired tables (`kvm_mmu_commit_zap_page()`).
    pub(crate) fn commit_zap(&self, mmu: &mut Locked, retired: &[u32], flushes: bool, tlb: &mut dyn TlbFlush) {
        if retired.is_empty() {
            return;
        }
        let mut owed = FlushOwed::nothing();
        if flushes {
            owed.owe();
        }
        if self.plants(Mistake::FreedBeforeFlush) {
            self.free(mmu, retired, tlb);
        }
        owed.all(self.policy(), tlb);
        if !self.plants(Mistake::FreedBeforeFlush) {
            self.free(mmu, retired, tlb);
        }
    }

    /// Frees tables that no entry links and no TLB uses.
    pub(crate) fn free(&self, mmu: &mut Locked, retired: &[u32], tlb: &mut dyn TlbFlush) {
        for &table in retired {
            self.tables.free(table);
            mmu.shadow_pages.release(table);
            tlb.freed();
        }
    }

    /// Removes `table` from hash and parents, and removes its entries (`kvm_mmu_prepare_zap_page()`).
    pub(crate) fn retire(&self, mmu: &mut Locked, slots: &Memslots, table: u32) {
        if !self.plants(Mistake::ZappedStaysListed) {
            mmu.shadow_pages.remove_nx_split(table);
        }
        for parent in mmu.shadow_pages.retire(table) {
            self.tables.set(parent, Entry::ABSENT);
        }
        let SpKey { gfn, level, direct, .. } = *mmu.shadow_pages.key(table);
        if !direct {
            Self::unaccount(mmu, slots, gfn);
        }
        for (at, entry) in self.tables.entries(table, level).filter(|(_, entry)| entry.is_present()) {
            if entry.is_leaf(level) {
                self.zap(mmu, at);
            } else {
                mmu.shadow_pages.unlink(entry.table(), at);
                self.tables.set(at, Entry::ABSENT);
            }
        }
    }

    /// A shadow page for the guest's table in `gfn` is gone (`unaccount_shadowed()`). The remaining ones decide what
    /// the page still counts as.
    pub(crate) fn unaccount(mmu: &Locked, slots: &Memslots, gfn: Gfn) {
        let Some(slot) = slots.find(gfn) else { return };
        let Some(page) = gfn.offset_from(slot.gfn) else { return };
        let mut left = mmu.shadow_pages.indirect_of(gfn).map(|table| mmu.shadow_pages.key(table).level).peekable();
        if left.peek().is_none() {
            slot.tables.remove(page);
        }
        if left.all(|level| level == 1) {
            slot.upper_tables.remove(page);
        }
    }
}
