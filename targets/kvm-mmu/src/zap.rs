//! Zaps of ranges of gfns that take long: now and then whoever is at it gives the `mmu_lock` up, so that others have their turn, and
//! goes on where it was (`kvm_zap_gfn_range()`, `tdp_mmu_iter_cond_resched()`).
//!
//! Nothing is owed when the lock is given up: who has his turn finds nothing mapped any more and does not flush. Faults for the gfns
//! are retried until the zap has ended, so that what is behind the walk stays as it is.

use crate::flush::{FlushOwed, TlbFlush};
use crate::policy::{Family, Policy};
use crate::second_stage::SecondStage;
use crate::spte::Format;
use crate::tdp_mmu::RootWalk;
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

impl<P: Policy, F: Format> SecondStage<P, F> {
    /// Nothing will map `pages` frames from `first` until the end.
    pub(crate) fn zap_begin(&self, first: Gfn, pages: u64) -> GfnZap {
        let mut mmu = self.mmu_lock.lock();
        self.notifier.begin_gfns(first, pages);
        let walk = match P::FAMILY {
            Family::Rmap => RootWalk::over(),
            Family::Tdp => self.get_roots(&mut mmu, first),
        };
        GfnZap { first, pages, walk }
    }

    /// Take away `leaves` leaves, or, where they are found by the rmap, all there are. True if that was all.
    pub(crate) fn zap_some(&self, zap: &mut GfnZap, leaves: u64, tlb: &mut dyn TlbFlush) -> bool {
        let mut mmu = self.mmu_lock.lock();
        match P::FAMILY {
            Family::Rmap => {
                let mut owed = FlushOwed::nothing();
                self.zap_gfns(&mut mmu, zap.first, zap.pages, &mut owed);
                owed.range::<P>(self.vm.stolen(), zap.first, zap.pages, tlb);
                true
            }
            Family::Tdp => self.tdp_zap_some(&mmu, zap, leaves, tlb),
        }
    }

    /// Take away the rest: nothing maps the frames when this returns.
    pub(crate) fn zap_end(&self, mut zap: GfnZap, tlb: &mut dyn TlbFlush) {
        while !self.zap_some(&mut zap, LEAVES_AT_ONCE, tlb) {}
        let mut mmu = self.mmu_lock.lock();
        self.put_roots(&mut mmu, zap.walk);
        self.notifier.end_gfns();
    }
}
