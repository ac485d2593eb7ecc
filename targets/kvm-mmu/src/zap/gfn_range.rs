//! Long zaps of a range of gfns, which drop the `mmu_lock` now and then and resume where they were
//! (`kvm_zap_gfn_range()`, `tdp_mmu_iter_cond_resched()`).
//!
//! No flush is owed when the lock is dropped: another thread that finds a gfn unmapped does not flush. Faults for the
//! gfns are retried until the zap ends, so that the part behind the walk stays empty.

use crate::host::TlbFlush;
use crate::policy::{Family, HasPolicy, Policy};
use crate::second_stage::SecondStage;
use crate::second_stage::flush::FlushOwed;
use crate::tables::spte::Format;
use crate::zap::tdp::RootWalk;
use gpa_model::Gfn;

/// The number of leaves that are removed under one hold of the lock.
const LEAVES_AT_ONCE: u64 = 512;

/// A zap that has begun and not ended.
#[derive(Debug)]
#[must_use = "faults for its gfns are retried until it ends"]
pub(crate) struct GfnZap {
    pub(crate) first: Gfn,
    pub(crate) pages: u64,
    /// The progress of the walk, in an MMU that walks from roots.
    pub(crate) walk: RootWalk,
}

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Removes the mappings of `pages` gfns from `first` under every alias. The lock is dropped after every `leaves`
    /// leaves; 0 counts as 1.
    pub fn zap_gfn_range(&self, first: Gfn, pages: u64, leaves: u64, tlb: &mut dyn TlbFlush) {
        let mut zap = self.zap_begin(first, pages);
        while !self.zap_some(&mut zap, leaves.max(1), tlb) {}
        self.zap_end(zap, tlb);
    }

    /// Begins a zap: until its end nothing can map `pages` gfns from `first`.
    pub(crate) fn zap_begin(&self, first: Gfn, pages: u64) -> GfnZap {
        let mut mmu = self.mmu_lock.lock();
        self.notifier.begin_gfns(first, pages);
        let walk = match self.policy().family() {
            Family::Rmap => RootWalk::over(),
            Family::Tdp => self.get_roots(&mut mmu, first),
        };
        GfnZap { first, pages, walk }
    }

    /// Removes up to `leaves` leaves. Returns true if there are no more.
    pub(crate) fn zap_some(&self, zap: &mut GfnZap, leaves: u64, tlb: &mut dyn TlbFlush) -> bool {
        let mut mmu = self.mmu_lock.lock();
        match self.policy().family() {
            Family::Rmap => {
                let mut owed = FlushOwed::nothing();
                // Removed leaves are not found again, so each round starts with the first that is left.
                let all = self.zap_some_gfns(&mut mmu, zap.first, zap.pages, leaves, &mut owed);
                owed.range(self.policy(), self.vm.stolen(), zap.first, zap.pages, tlb);
                all
            }
            Family::Tdp => self.tdp_zap_some(&mmu, zap, leaves, tlb),
        }
    }

    /// Removes the rest, and ends the zap.
    pub(crate) fn zap_end(&self, mut zap: GfnZap, tlb: &mut dyn TlbFlush) {
        while !self.zap_some(&mut zap, LEAVES_AT_ONCE, tlb) {}
        let mut mmu = self.mmu_lock.lock();
        self.put_roots(&mut mmu, zap.walk, tlb);
        self.notifier.end_gfns();
    }
}
