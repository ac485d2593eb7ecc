//! Zaps of ranges of gfns that take long: now and then whoever is at it gives the `mmu_lock` up, so that others have their turn, and
//! goes on where it was (`kvm_zap_gfn_range()`, `tdp_mmu_iter_cond_resched()`).
//!
//! Nothing is owed when the lock is given up: who has his turn finds nothing mapped any more and does not flush. Faults for the gfns
//! are retried until the zap has ended, so that what is behind the walk stays as it is.

use crate::host::TlbFlush;
use crate::policy::{Family, HasPolicy, Policy};
use crate::second_stage::SecondStage;
use crate::second_stage::flush::FlushOwed;
use crate::tables::spte::Format;
use crate::zap::tdp::RootWalk;
use gpa_model::Gfn;

/// Leaves that go before others have their turn.
const LEAVES_AT_ONCE: u64 = 512;

/// A zap that has begun and not ended.
#[derive(Debug)]
#[must_use = "faults for its gfns are retried until it ends"]
pub(crate) struct GfnZap {
    pub(crate) first: Gfn,
    pub(crate) pages: u64,
    /// How far it has got, where there are roots to walk from.
    pub(crate) walk: RootWalk,
}

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Take away what maps `pages` frames from `first`, under every alias. Others have their turn whenever `leaves` leaves are gone; 0 is
    /// taken for 1.
    pub fn zap_gfn_range(&self, first: Gfn, pages: u64, leaves: u64, tlb: &mut dyn TlbFlush) {
        let mut zap = self.zap_begin(first, pages);
        while !self.zap_some(&mut zap, leaves.max(1), tlb) {}
        self.zap_end(zap, tlb);
    }

    /// Nothing will map `pages` frames from `first` until the end.
    pub(crate) fn zap_begin(&self, first: Gfn, pages: u64) -> GfnZap {
        let mut mmu = self.mmu_lock.lock();
        self.notifier.begin_gfns(first, pages);
        let walk = match self.policy().family() {
            Family::Rmap => RootWalk::over(),
            Family::Tdp => self.get_roots(&mut mmu, first),
        };
        GfnZap { first, pages, walk }
    }

    /// Take away `leaves` leaves. True if there are no more.
    pub(crate) fn zap_some(&self, zap: &mut GfnZap, leaves: u64, tlb: &mut dyn TlbFlush) -> bool {
        let mut mmu = self.mmu_lock.lock();
        match self.policy().family() {
            Family::Rmap => {
                let mut owed = FlushOwed::nothing();
                // What is gone is not found again, so every turn begins with the first that is there.
                let all = self.zap_some_gfns(&mut mmu, zap.first, zap.pages, leaves, &mut owed);
                owed.range(self.policy(), self.vm.stolen(), zap.first, zap.pages, tlb);
                all
            }
            Family::Tdp => self.tdp_zap_some(&mmu, zap, leaves, tlb),
        }
    }

    /// Take away the rest: nothing maps the frames when this returns.
    pub(crate) fn zap_end(&self, mut zap: GfnZap, tlb: &mut dyn TlbFlush) {
        while !self.zap_some(&mut zap, LEAVES_AT_ONCE, tlb) {}
        let mut mmu = self.mmu_lock.lock();
        self.put_roots(&mut mmu, zap.walk, tlb);
        self.notifier.end_gfns();
    }
}
