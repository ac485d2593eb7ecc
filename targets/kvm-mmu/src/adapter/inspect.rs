//! Reports what the MMU keeps by gfn, so that oracles can check it.

use super::KvmMmu;
use crate::policy::{Family, HasPolicy, Policy};
use crate::second_stage::leaves::{is_leaf, is_link};
use crate::second_stage::{Locked, SecondStage};
use crate::tables::roots::{GfnFilter, Root};
use crate::tables::shadow_pages::SpKey;
use crate::tables::spte::{ENTRIES, Entry, Format, leaf_level};
use crate::tables::table_pages::Sptep;
use gpa_model::{Gfn, GfnIndexed};
use smallvec::SmallVec;

impl<P: HasPolicy, F: Format> KvmMmu<P, F> {
    /// Reports every record that is kept by gfn.
    pub(super) fn report(&self, visit: &mut dyn FnMut(GfnIndexed)) {
        if self.mmu.vm.dirty_ring().is_some() {
            self.reaper.inspect(&self.mmu, visit);
        }
        for slot in self.mmu.slots.read().iter() {
            slot.dirty.iter().for_each(|page| visit(GfnIndexed::DirtyLog(slot.gfn.add(page).raw())));
        }
        for waiting in &self.mmu.async_pf {
            waiting.lock().gfns().for_each(|gfn| visit(GfnIndexed::AsyncPf(gfn.raw())));
        }
        if self.mmu.policy().family() == Family::Tdp {
            return self.mmu.tdp_inspect(visit);
        }
        let locked = self.mmu.mmu_lock.lock();
        // A shadow page without a parent maps nothing, but its entries stay valid for the next time it is linked.
        let root = self.mmu.tables.root(Root::Direct);
        for (gfn, at) in locked.rmap.iter() {
            if !locked.shadow_pages.is_linked(root, at.table, at.level) {
                visit(GfnIndexed::ShadowRmap { gfn: gfn.raw(), spte: place(at) });
                continue;
            }
            let gpa = locked.shadow_pages.gpa_of(self.mmu.vm.stolen(), at);
            let idle = self.mmu.tables.get(at).is_idle();
            visit(GfnIndexed::Rmap { gfn: gfn.raw(), gpa, level: leaf_level(at.level), idle });
        }
        for (table, level) in locked.shadow_pages.levels() {
            let &SpKey { gfn, alias, level: _, direct, access, guest_mode } = locked.shadow_pages.key(table);
            if !locked.shadow_pages.is_obsolete(table) {
                visit(GfnIndexed::ShadowPage { gfn: gfn.raw(), alias, level, direct, access, guest_mode });
            }
            if !locked.shadow_pages.is_linked(root, table, level) {
                let leaves = self.mmu.tables.entries(table, level);
                let leaves = leaves.filter(|(at, entry)| entry.is_present() && entry.is_leaf(at.level));
                leaves.for_each(|(at, _)| {
                    let gfn = locked.shadow_pages.gfn_of(at).raw();
                    visit(GfnIndexed::ShadowLeaf { gfn, spte: place(at) });
                });
            }
        }
        for (_, &SpKey { gfn, alias, level, .. }) in locked.shadow_pages.nx_split() {
            visit(GfnIndexed::NxSplit { gfn: gfn.raw(), alias, level });
        }
        for (_, entry) in locked.shadow_pages.mmio_entries(&self.mmu.tables) {
            visit(GfnIndexed::Mmio(entry.mmio_gfn().raw()));
        }
    }
}

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Reports the shadow pages that vCPUs can reach, and all other tables.
    pub(crate) fn tdp_inspect(&self, visit: &mut dyn FnMut(GfnIndexed)) {
        let mmu = self.mmu_lock.lock();
        let mut reached: SmallVec<[u32; 32]> = SmallVec::new();
        for root in self.valid_roots(GfnFilter::All).map(|root| self.tables.root(root)) {
            reached.push(root);
            reached.extend(self.links(&mmu, root));
        }
        for &table in &reached {
            let SpKey { gfn, alias, level, direct, access, guest_mode } = *mmu.shadow_pages.key(table);
            visit(GfnIndexed::ShadowPage { gfn: gfn.raw(), alias, level, direct, access, guest_mode });
        }
        let of_vcpus = reached.len();
        for &root in &mmu.retired_roots {
            reached.push(root);
            reached.extend(self.links(&mmu, root));
            for (at, entry) in self.leaves(&mmu, root) {
                let (gfn, level) = (mmu.shadow_pages.gfn_of(at).raw(), leaf_level(at.level));
                visit(GfnIndexed::Retired { gfn, pfn: entry.pfn(), level });
            }
        }
        for (table, _) in mmu.shadow_pages.levels() {
            let (SpKey { gfn, alias, level, .. }, reached) = (*mmu.shadow_pages.key(table), reached.contains(&table));
            visit(GfnIndexed::Table { gfn: gfn.raw(), alias, level, reached });
        }
        let waits = |table: &u32| reached[of_vcpus..].contains(table);
        for (_, &SpKey { gfn, alias, level, .. }) in mmu.shadow_pages.nx_split().filter(|(table, _)| !waits(table)) {
            visit(GfnIndexed::NxSplit { gfn: gfn.raw(), alias, level });
        }
        for (_, entry) in mmu.shadow_pages.mmio_entries(&self.tables) {
            visit(GfnIndexed::Mmio(entry.mmio_gfn().raw()));
        }
    }

    /// The tables below `root`.
    fn links(&self, mmu: &Locked, root: u32) -> impl Iterator<Item = u32> {
        let entries = self.iter(mmu, root, Gfn::new(0), u64::MAX).filter(|(at, entry)| is_link(*at, *entry));
        entries.map(|(_, entry)| entry.table())
    }

    /// The leaves below `root`.
    fn leaves(&self, mmu: &Locked, root: u32) -> impl Iterator<Item = (Sptep, Entry<F>)> {
        self.iter(mmu, root, Gfn::new(0), u64::MAX).filter(|(at, entry)| is_leaf(*at, *entry))
    }
}

/// A number that identifies the place of an SPTE.
fn place(at: Sptep) -> u64 {
    u64::from(at.table) * ENTRIES as u64 + u64::from(at.index)
}
