//! Zaps in the TDP MMU (`tdp_mmu.c`): leaves are found from the roots, a table goes with the entry that links it, and a
//! memslot that goes takes the direct root along.
//!
//! Where the stolen bit is the shared bit, no root is replaced: the memslot's leaves are removed one by one from both.
//! Otherwise vCPUs load a new direct root at once, and the old one is taken apart when the memslot change ends
//! (`kvm_tdp_mmu_invalidate_roots()`, `kvm_tdp_mmu_zap_invalidated_roots()`). Until then the guest cannot reach its
//! leaves, but the notifier still has to. The mirror root lives as long as the VM, so the memslot's leaves are removed
//! one by one there (`kvm_mmu_zap_memslot_leafs()`).

use crate::host::TlbFlush;
use crate::memslots::slots::Memslot;
use crate::policy::{HasPolicy, Mistake, Policy};
use crate::second_stage::flush::FlushOwed;
use crate::second_stage::leaves::is_leaf;
use crate::second_stage::{Locked, SecondStage};
use crate::tables::roots::{GfnFilter, Root};
use crate::tables::spte::{Entry, Format, pages_of_entry};
use crate::tables::table_pages::Sptep;
use crate::zap::Retired;
use crate::zap::gfn_range::GfnZap;
use gpa_model::{Gfn, Gpa};
use smallvec::SmallVec;

/// The progress of a walk over several roots, which drops the lock now and then.
#[derive(Debug)]
#[must_use = "the roots are held until it is over"]
pub(crate) struct RootWalk {
    roots: SmallVec<[u32; 2]>,
    /// The number of finished roots.
    done: usize,
    /// The gfn to continue at in the next root.
    next: Gfn,
    /// The flush that is owed for finished roots.
    owed: FlushOwed,
}

impl RootWalk {
    /// A walk over no roots.
    pub(crate) fn over() -> Self {
        Self { roots: SmallVec::new(), done: 0, next: Gfn::new(0), owed: FlushOwed::nothing() }
    }
}

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Removes the mappings of `pages` gfns from `first`, whose pages the host takes away
    /// (`kvm_tdp_mmu_unmap_gfn_range()`).
    pub(crate) fn tdp_unmap(&self, mmu: &Locked, first: Gfn, pages: u64, names: GfnFilter, owed: &mut FlushOwed) {
        for root in self.valid_roots(names) {
            if self.plants(Mistake::FlushOfLastRoot) {
                *owed = FlushOwed::nothing();
            }
            self.zap_leafs(mmu, self.tables.root(root), first, pages, owed);
        }
        let retired = if self.plants(Mistake::RetiredRootForgotten) { &[] } else { &mmu.retired_roots[..] };
        for &root in retired {
            self.zap_leafs(mmu, root, first, pages, owed);
        }
    }

    /// Removes the leaves under `root` that map any of `pages` gfns from `first`. Their tables stay
    /// (`tdp_mmu_zap_leafs()`).
    fn zap_leafs(&self, mmu: &Locked, root: u32, first: Gfn, pages: u64, owed: &mut FlushOwed) {
        for (at, entry) in self.iter(mmu, root, first, pages) {
            if is_leaf(at, entry) {
                self.tables.set(at, Entry::ABSENT);
                self.owe(mmu, at, first, owed);
            }
        }
    }

    /// Begins a walk over the roots that vCPUs load. They are not freed before its end, even if they are replaced
    /// (`kvm_tdp_mmu_get_root()`).
    pub(crate) fn get_roots(&self, mmu: &mut Locked, first: Gfn) -> RootWalk {
        let roots: SmallVec<[u32; 2]> = self.valid_roots(GfnFilter::All).map(|root| self.tables.root(root)).collect();
        mmu.held_roots.extend_from_slice(&roots);
        RootWalk { roots, done: 0, next: first, owed: FlushOwed::nothing() }
    }

    /// Ends a walk. Frees its roots that were taken apart meanwhile and that no other walk holds
    /// (`kvm_tdp_mmu_put_root()`).
    pub(crate) fn put_roots(&self, mmu: &mut Locked, walk: RootWalk, tlb: &mut dyn TlbFlush) {
        for root in walk.roots {
            if let Some(at) = mmu.held_roots.iter().position(|held| *held == root) {
                mmu.held_roots.swap_remove(at);
            }
            let retired = mmu.retired_roots.iter().position(|retired| *retired == root);
            if let (Some(at), false) = (retired, mmu.held_roots.contains(&root))
                && self.tables.entries(root, self.tables.root_level()).all(|(_, entry)| !entry.is_present())
            {
                mmu.retired_roots.remove(at);
                mmu.shadow_pages.retire(root);
                self.free(mmu, &[root], tlb);
            }
        }
    }

    /// Removes `leaves` leaves, and flushes before the lock is dropped. Returns true if there are no more.
    pub(crate) fn tdp_zap_some(&self, mmu: &Locked, zap: &mut GfnZap, leaves: u64, tlb: &mut dyn TlbFlush) -> bool {
        let (walk, end, mut left) = (&mut zap.walk, zap.first.add(zap.pages), leaves);
        while let Some(&root) = walk.roots.get(walk.done) {
            let mut owed = FlushOwed::nothing();
            let pages = end.offset_from(walk.next).unwrap_or(0);
            for (at, _) in self.iter(mmu, root, walk.next, pages).filter(|(at, entry)| is_leaf(*at, *entry)) {
                if left == 0 {
                    let entry = mmu.shadow_pages.gfn_of(at);
                    walk.next = self.policy().restarted_at(entry, pages_of_entry(at.level)).max(walk.next);
                    let flushes = self.policy().flushes_before_yield(walk.owed.is_owed(), owed.is_owed());
                    walk.owed.add(owed);
                    if flushes {
                        walk.owed.take().range(self.policy(), self.vm.stolen(), zap.first, zap.pages, tlb);
                    }
                    return false;
                }
                left -= 1;
                self.tables.set(at, Entry::ABSENT);
                self.owe(mmu, at, zap.first, &mut owed);
            }
            walk.owed.add(owed);
            walk.done += 1;
            walk.next = zap.first;
        }
        walk.owed.take().range(self.policy(), self.vm.stolen(), zap.first, zap.pages, tlb);
        true
    }

    /// Makes the mappings of `slot` unreachable for vCPUs, once the owed flush is done.
    pub(crate) fn tdp_zap_slot(&self, mmu: &mut Locked, slot: &Memslot, owed: &mut FlushOwed) {
        if self.vm.shared_private() {
            // Only a default VM replaces its root (`kvm_memslot_flush_zap_all()`, `kvm_mmu_zap_memslot()`).
            return self.tdp_unmap(mmu, slot.gfn, slot.pages, self.policy().names_of_deleted(), owed);
        }
        for root in self.valid_roots(GfnFilter::Private) {
            self.zap_leafs(mmu, self.tables.root(root), slot.gfn, slot.pages, owed);
        }
        let alias = Root::Direct.alias(self.tables.direct_bits());
        mmu.retired_roots.push(self.tables.root(Root::Direct));
        let new = mmu.shadow_pages.alloc_root(self.tables.root_level(), alias);
        self.tables.set_root(Root::Direct, new);
        owed.owe();
    }

    /// Takes the replaced roots apart, and frees them.
    pub(crate) fn tdp_zap_retired_roots(&self, tlb: &mut dyn TlbFlush) {
        let mut mmu = self.mmu_lock.lock();
        for root in std::mem::take(&mut mmu.retired_roots) {
            let mut retired = Retired::new();
            for (at, _) in self.tables.entries(root, self.tables.root_level()) {
                let end = Gpa::new(0).add_pages((u64::from(at.index) + 1) * pages_of_entry(at.level));
                if self.policy().takes_apart(end, self.vm.maxphyaddr()) {
                    self.tdp_unlink(&mut mmu, at, &mut retired);
                }
            }
            if mmu.held_roots.contains(&root) {
                mmu.retired_roots.push(root);
            } else {
                mmu.shadow_pages.retire(root);
                retired.push(root);
            }
            let mut owed = FlushOwed::nothing();
            owed.owe();
            owed.all(self.policy(), tlb);
            self.free(&mut mmu, &retired, tlb);
        }
    }

    /// Makes the entry absent and removes everything below it (`handle_removed_pt()`).
    pub(crate) fn tdp_unlink(&self, mmu: &mut Locked, at: Sptep, retired: &mut Retired) {
        let entry = self.tables.get(at);
        self.tables.set(at, Entry::ABSENT);
        if entry.is_present() && !entry.is_leaf(at.level) {
            let table = entry.table();
            for (below, _) in self.tables.entries(table, at.level - 1) {
                self.tdp_unlink(mmu, below, retired);
            }
            if !self.plants(Mistake::ZappedStaysListed) {
                mmu.shadow_pages.remove_nx_split(table);
            }
            mmu.shadow_pages.retire(table);
            retired.push(table);
        }
    }
}
