//! Leaves: writing one, removing one, and visiting all leaves of a gfn under every alias, by the rmap or from the
//! roots.

use crate::policy::{Family, HasPolicy, Mistake, Policy};
use crate::second_stage::flush::FlushOwed;
use crate::second_stage::{Locked, SecondStage};
use crate::tables::roots::{GfnFilter, Root};
use crate::tables::spte::{Entry, Format, pages_of_entry};
use crate::tables::table_pages::Sptep;
use crate::tables::tdp_iter::TdpIter;
use gpa_model::{Alias, Gfn};

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Writes a leaf and adds it to the rmap (`mmu_set_spte()`).
    pub(crate) fn set_leaf(&self, mmu: &mut Locked, at: Sptep, gfn: Gfn, alias: Alias, entry: Entry<F>) {
        if self.policy().family() == Family::Rmap && !self.tables.get(at).is_present() {
            mmu.rmap.add(self.policy().rmap_key(gfn, alias), at);
        }
        self.tables.set(at, entry);
    }

    /// Removes one leaf. The rmap key is computed from the place of the leaf.
    pub(crate) fn zap(&self, mmu: &mut Locked, at: Sptep) {
        if self.policy().family() == Family::Rmap {
            let gfn = self.policy().remove_key(mmu.shadow_pages.gfn_of(at), mmu.shadow_pages.key(at.table).alias);
            mmu.rmap.remove(gfn, at);
        }
        self.tables.set(at, Entry::ABSENT);
    }

    /// Owes a flush for the leaf at `at`, which is changed because of `gfn`.
    pub(crate) fn owe(&self, mmu: &Locked, at: Sptep, gfn: Gfn, owed: &mut FlushOwed) {
        if self.plants(Mistake::ShadowLeafUnflushed) && !mmu.shadow_pages.key(at.table).direct {
            return;
        }
        owed.owe();
        if at.level > 1 {
            let (leaf, table) = (mmu.shadow_pages.gfn_of(at), mmu.shadow_pages.key(at.table).gfn);
            let (first, pages) = self.policy().flushed_for_large(leaf, pages_of_entry(at.level), table, gfn);
            owed.owe_large(first, pages);
        }
    }

    /// Visits the leaves that map any of `pages` gfns from `first` under any alias. `reached` says how many SPTEs of an
    /// rmap chain are visited.
    pub(crate) fn for_each_leaf(
        &self,
        mmu: &Locked,
        first: Gfn,
        pages: u64,
        reached: impl Fn(usize) -> usize,
        mut visit: impl FnMut(Sptep),
    ) {
        match self.policy().family() {
            Family::Rmap => {
                let chains = mmu.rmap.within(first, pages).map(|chain| &chain[..reached(chain.len())]);
                chains.flatten().for_each(|&at| visit(at));
            }
            Family::Tdp => self.tdp_leaves(mmu, first, pages, visit),
        }
    }

    /// The roots that vCPUs load.
    pub(crate) fn valid_roots(&self, names: GfnFilter) -> impl Iterator<Item = Root> {
        let mirrored = self.tables.direct_bits().gfn_mask() != 0;
        let exists = move |root: &Root| *root == Root::Direct || mirrored;
        Root::ALL.into_iter().filter(exists).filter(move |root| names.reaches(*root))
    }

    pub(crate) fn iter(&self, mmu: &Locked, root: u32, first: Gfn, pages: u64) -> TdpIter<'_, F> {
        TdpIter::new(&self.tables, root, mmu.shadow_pages.key(root).alias, first, pages)
    }

    /// Visits the leaves that map any of `pages` gfns from `first` in either root.
    pub(crate) fn tdp_leaves(&self, mmu: &Locked, first: Gfn, pages: u64, mut visit: impl FnMut(Sptep)) {
        for root in self.valid_roots(GfnFilter::All) {
            let entries = self.iter(mmu, self.tables.root(root), first, pages);
            entries.filter(|(at, entry)| is_leaf(*at, *entry)).for_each(|(at, _)| visit(at));
        }
    }
}

pub(crate) fn is_link<F: Format>(at: Sptep, entry: Entry<F>) -> bool {
    entry.is_present() && !entry.is_leaf(at.level)
}

pub(crate) fn is_leaf<F: Format>(at: Sptep, entry: Entry<F>) -> bool {
    entry.is_present() && entry.is_leaf(at.level)
}
