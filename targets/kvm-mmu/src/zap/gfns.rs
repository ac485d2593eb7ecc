//! Zaps of a range of gfns under one hold of the `mmu_lock`.

use crate::policy::{Family, HasPolicy, Mistake, Policy};
use crate::second_stage::flush::FlushOwed;
use crate::second_stage::{Locked, SecondStage};
use crate::tables::roots::GfnFilter;
use crate::tables::spte::Format;
use crate::tables::table_pages::Sptep;
use gpa_model::Gfn;
use smallvec::SmallVec;

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Removes the leaves that map `pages` gfns from `first` under any alias that `names` selects
    /// (`kvm_unmap_gfn_range()`). An MMU with an rmap has no shared bit, and removes all of them.
    pub(crate) fn zap_gfns(&self, mmu: &mut Locked, first: Gfn, pages: u64, names: GfnFilter, owed: &mut FlushOwed) {
        match self.policy().family() {
            Family::Rmap => _ = self.zap_some_gfns(mmu, first, pages, u64::MAX, owed),
            Family::Tdp => self.tdp_unmap(mmu, first, pages, names, owed),
        }
    }

    /// The same for at most `most` leaves, in the order of the rmap. Returns true if there are no more.
    pub(crate) fn zap_some_gfns(
        &self,
        mmu: &mut Locked,
        first: Gfn,
        pages: u64,
        most: u64,
        owed: &mut FlushOwed,
    ) -> bool {
        let chains = mmu.rmap.within(first, pages);
        let mut leaves = chains.flat_map(|chain| &chain[..self.policy().zapped(chain.len())]).copied();
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let some: SmallVec<[Sptep; 16]> = leaves.by_ref().take(most).collect();
        let all = leaves.next().is_none();
        drop(leaves);
        for at in some {
            let entry = self.tables.get(at);
            let reached = at.level == 1 || !self.plants(Mistake::LargeNotZapped);
            if reached && self.policy().can_zap(mmu.shadow_pages.gfn_of(at)) && entry.is_present() {
                if !entry.is_idle() || !self.plants(Mistake::IdleUnflushed) {
                    self.owe(mmu, at, first, owed);
                }
                self.zap(mmu, at);
            }
        }
        all
    }
}
