//! Shadow pages: the key of each table page, its parents, and the hash that finds it. Guarded by the `mmu_lock`.

use crate::tables::spte::{Entry, Format, pages_of_entry};
use crate::tables::table_pages::{CAPACITY, Sptep, Tables};
use gpa_model::limits::GPTES;
use gpa_model::{Alias, Gfn, Gpa, Levels, Rights, StolenMask};
use smallvec::SmallVec;
use std::collections::VecDeque;

/// The key of a shadow page. A direct page translates consecutive gfns; an indirect page stands for a table of the
/// guest (`role.direct`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpKey {
    /// The first gfn that the page translates, or the gfn of the guest's table. Without stolen bits.
    pub gfn: Gfn,
    /// The alias of the addresses that lead here. It has no meaning above the level where the paths of two aliases
    /// part.
    pub alias: Alias,
    /// 1 for a table of leaves, 4 or 5 for the root.
    pub level: u8,
    /// Whether the page is direct.
    pub direct: bool,
    /// What the guest's entries above the page allow together.
    pub access: Rights,
    /// Whether the page is for a nested guest, from which internal memslots are hidden (`role.guest_mode`).
    pub guest_mode: bool,
}

impl SpKey {
    /// The key of a direct page that no guest entry restricts.
    pub(crate) const fn direct(gfn: Gfn, alias: Alias, level: u8) -> Self {
        Self { gfn, alias, level, direct: true, access: Rights::RWX, guest_mode: false }
    }
}

const BUCKETS: usize = 16;

#[derive(Debug)]
struct ShadowPage {
    key: SpKey,
    /// The generation in which the page was made (`mmu_valid_gen`).
    generation: u64,
    /// The entries that link the page (`parent_ptes`). A page without parents maps nothing, but can be found and linked
    /// again.
    parents: SmallVec<[Sptep; 1]>,
    /// The gfns that the leaves of an indirect page map (`sp->gfns`).
    gfns: [Gfn; GPTES],
    /// The guest may have written its table since the last synchronisation.
    unsync: bool,
    /// A free page keeps its key, as freed memory keeps its contents: a mutant that still uses the page reads it.
    free: bool,
}

/// All shadow pages of a VM.
pub(crate) struct ShadowPages {
    /// The pages by table number.
    pages: Vec<ShadowPage>,
    buckets: Box<[Vec<u32>; BUCKETS]>,
    /// The pages that can be recycled, oldest first (`active_mmu_pages`).
    active: VecDeque<u32>,
    /// The pages that NX recovery removes, oldest first, with their keys at insertion (`possible_nx_huge_pages`).
    nx_split: VecDeque<(u32, SpKey)>,
    free: Vec<u32>,
    /// Pages of another generation are obsolete (`kvm->arch.mmu_valid_gen`).
    generation: u64,
    /// The number of pages that are neither free nor retired (`n_used_mmu_pages`).
    used: usize,
    /// The limit of that number (`n_max_mmu_pages`).
    limit: usize,
}

impl std::fmt::Debug for ShadowPages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys()).finish()
    }
}

impl ShadowPages {
    /// Creates the root pages, one for each of `aliases`. The first is table 0.
    pub(crate) fn new(levels: Levels, aliases: &[Alias]) -> Self {
        let buckets = Box::new([const { Vec::new() }; BUCKETS]);
        let (active, nx_split, free) = (VecDeque::new(), VecDeque::new(), Vec::new());
        let (generation, used, limit) = (0, 0, CAPACITY);
        let mut new = Self { pages: Vec::new(), buckets, active, nx_split, free, generation, used, limit };
        for &alias in aliases {
            new.alloc_root(levels.count(), alias);
        }
        new
    }

    /// Resets to the root pages. Table pages are kept for reuse.
    pub(crate) fn clear<F: Format>(&mut self, tables: &mut Tables<F>, levels: Levels, aliases: &[Alias]) {
        tables.wipe(self.pages.len(), levels);
        self.pages.clear();
        for bucket in self.buckets.iter_mut() {
            bucket.clear();
        }
        self.active.clear();
        self.nx_split.clear();
        self.free.clear();
        self.generation = 0;
        self.used = 0;
        self.limit = CAPACITY;
        for &alias in aliases {
            self.alloc_root(levels.count(), alias);
        }
    }

    /// Makes a root for the addresses with `alias`.
    pub(crate) fn alloc_root(&mut self, level: u8, alias: Alias) -> u32 {
        self.alloc(SpKey::direct(Gfn::new(0), alias, level))
    }

    /// Makes a page for `key` without adding it to the hash.
    pub(crate) fn alloc(&mut self, key: SpKey) -> u32 {
        let (parents, gfns) = (SmallVec::new(), [Gfn::new(0); GPTES]);
        let new = ShadowPage { key, generation: self.generation, parents, gfns, unsync: false, free: false };
        self.used += 1;
        match self.free.pop() {
            Some(table) => {
                self.pages[table as usize] = new;
                table
            }
            None => {
                self.pages.push(new);
                self.pages.len() as u32 - 1
            }
        }
    }

    fn sp(&self, table: u32) -> &ShadowPage {
        &self.pages[table as usize]
    }

    fn sp_mut(&mut self, table: u32) -> &mut ShadowPage {
        &mut self.pages[table as usize]
    }

    /// Makes all existing pages obsolete.
    pub(crate) fn next_generation(&mut self) {
        self.generation += 1;
    }

    pub(crate) fn is_obsolete(&self, table: u32) -> bool {
        self.sp(table).generation != self.generation
    }

    /// The pages that are obsolete and not free yet.
    pub(crate) fn obsolete(&self) -> impl Iterator<Item = u32> {
        self.levels().map(|(table, _)| table).filter(|table| self.is_obsolete(*table))
    }

    /// Sets the limit of the number of pages.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit.min(CAPACITY);
    }

    /// The page to recycle before `wanted` pages can be made, if the limit would be exceeded
    /// (`kvm_mmu_zap_oldest_mmu_pages()`). Never a root.
    pub(crate) fn to_recycle(&self, wanted: usize) -> Option<u32> {
        if self.used + wanted > self.limit { self.active.front().copied() } else { None }
    }

    /// Removes `table` from the hash, and returns the entries that link it. It is not free before the TLBs are flushed
    /// (`kvm_mmu_prepare_zap_page()`).
    pub(crate) fn retire(&mut self, table: u32) -> SmallVec<[Sptep; 1]> {
        self.active.retain(|other| *other != table);
        for bucket in self.buckets.iter_mut() {
            bucket.retain(|other| *other != table);
        }
        self.used -= 1;
        std::mem::take(&mut self.sp_mut(table).parents)
    }

    /// Lists `table`, which exists only because a large leaf must not be executable (`track_possible_nx_huge_page()`).
    pub(crate) fn add_nx_split(&mut self, table: u32) {
        if !self.is_nx_split(table) {
            self.nx_split.push_back((table, *self.key(table)));
        }
    }

    pub(crate) fn is_nx_split(&self, table: u32) -> bool {
        self.nx_split.iter().any(|(other, _)| *other == table)
    }

    /// Removes `table` from that list (`untrack_possible_nx_huge_page()`).
    pub(crate) fn remove_nx_split(&mut self, table: u32) {
        self.nx_split.retain(|(other, _)| *other != table);
    }

    pub(crate) fn oldest_nx_split(&self) -> Option<u32> {
        self.nx_split.front().map(|(table, _)| *table)
    }

    /// The pages of that list that are not obsolete, with their keys at insertion.
    pub(crate) fn nx_split(&self) -> impl Iterator<Item = (u32, &SpKey)> {
        let obsolete = |table: u32| !self.sp(table).free && self.is_obsolete(table);
        self.nx_split.iter().map(|(table, key)| (*table, key)).filter(move |(table, _)| !obsolete(*table))
    }

    /// Frees `table`: no table links it and no TLB uses it (`kvm_mmu_commit_zap_page()`).
    pub(crate) fn release(&mut self, table: u32) {
        self.sp_mut(table).free = true;
        self.free.push(table);
    }

    /// `at` does not link `child` any more (`drop_parent_pte()`).
    pub(crate) fn unlink(&mut self, child: u32, at: Sptep) {
        self.sp_mut(child).parents.retain(|parent| *parent != at);
    }

    /// Whether a walk from `root` can reach `table` at `level`. The level check ends the recursion for tables of a
    /// wrong level, which a mutant may link.
    pub(crate) fn is_linked(&self, root: u32, table: u32, level: u8) -> bool {
        let mut parents = self.sp(table).parents.iter().filter(|parent| parent.level == level + 1);
        table == root || parents.any(|parent| self.is_linked(root, parent.table, parent.level))
    }

    /// An entry that links `table`.
    pub(crate) fn parent(&self, table: u32) -> Option<Sptep> {
        self.sp(table).parents.first().copied()
    }

    /// The number and the level of each table page that is not free.
    pub(crate) fn levels(&self) -> impl Iterator<Item = (u32, u8)> {
        (0..).zip(&self.pages).filter(|(_, sp)| !sp.free).map(|(table, sp)| (table, sp.key.level))
    }

    /// The keys of the pages that are not obsolete.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &SpKey> {
        self.pages.iter().filter(|sp| !sp.free && sp.generation == self.generation).map(|sp| &sp.key)
    }

    pub(crate) fn key(&self, table: u32) -> &SpKey {
        &self.sp(table).key
    }

    /// The first gfn that the leaf at `at` maps, computed from its place (`kvm_mmu_page_get_gfn()`).
    pub(crate) fn gfn_of(&self, at: Sptep) -> Gfn {
        let sp = self.sp(at.table);
        if sp.key.direct {
            sp.key.gfn.add(u64::from(at.index) * pages_of_entry(at.level))
        } else {
            sp.gfns[usize::from(at.index)]
        }
    }

    /// Records that the leaf at `at` maps `gfn`. A direct page computes that from the place (`kvm_mmu_page_set_gfn()`).
    pub(crate) fn set_gfn(&mut self, at: Sptep, gfn: Gfn) {
        let sp = self.sp_mut(at.table);
        if !sp.key.direct {
            sp.gfns[usize::from(at.index)] = gfn;
        }
    }

    /// The indirect pages for the guest's table in `gfn` (`for_each_gfn_indirect_valid_sp()`).
    pub(crate) fn indirect_of(&self, gfn: Gfn) -> impl Iterator<Item = u32> {
        let bucket = bucket_of(&SpKey::direct(gfn, Alias::NONE, 1));
        let for_gfn = move |key: &SpKey| !key.direct && key.gfn == gfn;
        self.buckets[bucket].iter().copied().filter(move |&table| for_gfn(self.key(table)))
    }

    /// All pages but the roots.
    pub(crate) fn active(&self) -> impl Iterator<Item = u32> {
        self.active.iter().copied()
    }

    pub(crate) fn is_unsync(&self, table: u32) -> bool {
        self.sp(table).unsync
    }

    pub(crate) fn set_unsync(&mut self, table: u32, unsync: bool) {
        self.sp_mut(table).unsync = unsync;
    }

    /// The first address that the leaf at `at` translates.
    pub(crate) fn gpa_of(&self, stolen: StolenMask, at: Sptep) -> Gpa {
        stolen.join(self.gfn_of(at), self.key(at.table).alias)
    }

    /// Makes `at` link `child`.
    pub(crate) fn link<F: Format>(&mut self, tables: &Tables<F>, child: u32, at: Sptep) {
        self.sp_mut(child).parents.push(at);
        tables.set(at, Entry::link(child));
    }

    /// The pages in the hash bucket of `key`.
    pub(crate) fn bucket(&self, key: &SpKey) -> impl Iterator<Item = u32> {
        self.buckets[bucket_of(key)].iter().copied()
    }

    /// Adds `table` to the bucket of `key`, and to the pages that can be recycled.
    pub(crate) fn hash(&mut self, table: u32, key: &SpKey) {
        self.buckets[bucket_of(key)].push(table);
        self.active.push_back(table);
    }

    /// Removes every MMIO entry.
    pub(crate) fn drop_mmio<F: Format>(&self, tables: &Tables<F>) {
        for (at, _) in self.mmio_entries(tables) {
            tables.set(at, Entry::ABSENT);
        }
    }

    /// Every MMIO entry, current or not.
    pub(crate) fn mmio_entries<F: Format>(&self, tables: &Tables<F>) -> impl Iterator<Item = (Sptep, Entry<F>)> {
        let leaf_tables = self.levels().filter(|(_, level)| *level == 1);
        let entries = leaf_tables.flat_map(|(table, _)| tables.entries(table, 1));
        entries.filter(|(_, entry)| entry.mmio_generation().is_some())
    }
}

/// A weak hash on purpose, as in KVM: neighbours share buckets, so a match must compare the whole key.
fn bucket_of(key: &SpKey) -> usize {
    let mixed = (key.gfn.raw() | key.alias.raw()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 60) as usize
}
