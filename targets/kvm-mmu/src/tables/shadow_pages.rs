//! Shadow pages: what each table page is for, and the hash that finds one again. Under the `mmu_lock`.

use crate::tables::spte::{Entry, Format, pages_of_entry};
use crate::tables::table_pages::{CAPACITY, Sptep, Tables};
use gpa_model::limits::GPTES;
use gpa_model::{Alias, Gfn, Gpa, Levels, Rights, StolenMask};
use smallvec::SmallVec;
use std::collections::VecDeque;

/// What a shadow page is for. There are two kinds: a direct one translates frames that follow one another, an indirect one stands
/// for a table of the guest (`role.direct`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpKey {
    /// The first frame that it translates, or the frame that the guest's table lies in. Without stolen bits.
    pub gfn: Gfn,
    /// The alias of the addresses that lead here. Meaningless above the level where paths of two aliases part.
    pub alias: Alias,
    /// 1 for a table of leaves, 4 or 5 for the root.
    pub level: u8,
    /// Whether it is of the direct kind.
    pub direct: bool,
    /// What the guest's entries on the way to it allow, all of them together.
    pub access: Rights,
    /// Whether it is for a guest of the guest, which finds less (`role.guest_mode`).
    pub guest_mode: bool,
}

impl SpKey {
    /// A page of the direct kind, on whose way the guest forbids nothing.
    pub(crate) const fn direct(gfn: Gfn, alias: Alias, level: u8) -> Self {
        Self { gfn, alias, level, direct: true, access: Rights::RWX, guest_mode: false }
    }
}

const BUCKETS: usize = 16;

#[derive(Debug)]
struct ShadowPage {
    key: SpKey,
    /// When it was made (`mmu_valid_gen`).
    generation: u64,
    /// The entries that link it (`parent_ptes`). Without one nothing is mapped through it, but it is found again.
    parents: SmallVec<[Sptep; 1]>,
    /// Of an indirect page the frames that its leaves map: where the guest says, in no order (`sp->gfns`).
    gfns: [Gfn; GPTES],
    /// The guest may have written its table since it was looked at.
    unsync: bool,
    /// What is free keeps what it was for, as memory does that was freed: a mutant that still leads there reads that.
    free: bool,
}

/// All shadow pages of a VM.
pub(crate) struct ShadowPages {
    /// By the number of their table page.
    pages: Vec<ShadowPage>,
    buckets: Box<[Vec<u32>; BUCKETS]>,
    /// The pages that can be recycled, oldest first (`active_mmu_pages`).
    active: VecDeque<u32>,
    /// Those that recovery takes away, oldest first, with what they were for when they were put here
    /// (`possible_nx_huge_pages`).
    nx_split: VecDeque<(u32, SpKey)>,
    free: Vec<u32>,
    /// Pages of another one are obsolete (`kvm->arch.mmu_valid_gen`).
    generation: u64,
    /// How many are neither free nor about to be (`n_used_mmu_pages`).
    used: usize,
    /// How many there may be (`n_max_mmu_pages`).
    limit: usize,
}

impl std::fmt::Debug for ShadowPages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys()).finish()
    }
}

impl ShadowPages {
    /// Just the roots, one for each of `aliases`; the first is table 0.
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

    /// Back to just the roots; the table pages are kept and reused.
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

    /// A root, for the addresses with `alias`.
    pub(crate) fn alloc_root(&mut self, level: u8, alias: Alias) -> u32 {
        self.alloc(SpKey::direct(Gfn::new(0), alias, level))
    }

    /// A page for `key` that no hash finds.
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

    /// What there is now is obsolete from here on.
    pub(crate) fn next_generation(&mut self) {
        self.generation += 1;
    }

    pub(crate) fn is_obsolete(&self, table: u32) -> bool {
        self.sp(table).generation != self.generation
    }

    /// The pages that nobody finds any more, and that are not free yet.
    pub(crate) fn obsolete(&self) -> impl Iterator<Item = u32> {
        self.levels().map(|(table, _)| table).filter(|table| self.is_obsolete(*table))
    }

    /// How many there may be from now on.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit.min(CAPACITY);
    }

    /// The page to be recycled before `wanted` more can be made, if there are too many (`kvm_mmu_zap_oldest_mmu_pages()`).
    /// The root stays.
    pub(crate) fn to_recycle(&self, wanted: usize) -> Option<u32> {
        if self.used + wanted > self.limit { self.active.front().copied() } else { None }
    }

    /// Forget what `table` is for: it is found no more. It is not free before the TLBs are flushed
    /// (`kvm_mmu_prepare_zap_page()`). Returns the entries that link it.
    pub(crate) fn retire(&mut self, table: u32) -> SmallVec<[Sptep; 1]> {
        self.active.retain(|other| *other != table);
        for bucket in self.buckets.iter_mut() {
            bucket.retain(|other| *other != table);
        }
        self.used -= 1;
        std::mem::take(&mut self.sp_mut(table).parents)
    }

    /// `table` is there only because a large leaf must not be executable (`track_possible_nx_huge_page()`).
    pub(crate) fn add_nx_split(&mut self, table: u32) {
        if !self.is_nx_split(table) {
            self.nx_split.push_back((table, *self.key(table)));
        }
    }

    pub(crate) fn is_nx_split(&self, table: u32) -> bool {
        self.nx_split.iter().any(|(other, _)| *other == table)
    }

    /// `table` is needed for another reason, or going (`untrack_possible_nx_huge_page()`).
    pub(crate) fn remove_nx_split(&mut self, table: u32) {
        self.nx_split.retain(|(other, _)| *other != table);
    }

    pub(crate) fn oldest_nx_split(&self) -> Option<u32> {
        self.nx_split.front().map(|(table, _)| *table)
    }

    /// What the pages on that list, the obsolete ones left out, were for when they were put there.
    pub(crate) fn nx_split(&self) -> impl Iterator<Item = (u32, &SpKey)> {
        let obsolete = |table: u32| !self.sp(table).free && self.is_obsolete(table);
        self.nx_split.iter().map(|(table, key)| (*table, key)).filter(move |(table, _)| !obsolete(*table))
    }

    /// Nothing leads to `table` any more, in no table and no TLB: make it anew when one is wanted
    /// (`kvm_mmu_commit_zap_page()`).
    pub(crate) fn release(&mut self, table: u32) {
        self.sp_mut(table).free = true;
        self.free.push(table);
    }

    /// `at` does not link `child` any more (`drop_parent_pte()`).
    pub(crate) fn unlink(&mut self, child: u32, at: Sptep) {
        self.sp_mut(child).parents.retain(|parent| *parent != at);
    }

    /// Whether a walk from `root` can come to `table` at `level`. A table of a wrong level, which a mutant may link, does not
    /// lead round in a circle.
    pub(crate) fn is_linked(&self, root: u32, table: u32, level: u8) -> bool {
        let mut parents = self.sp(table).parents.iter().filter(|parent| parent.level == level + 1);
        table == root || parents.any(|parent| self.is_linked(root, parent.table, parent.level))
    }

    /// An entry that links `table`.
    pub(crate) fn parent(&self, table: u32) -> Option<Sptep> {
        self.sp(table).parents.first().copied()
    }

    /// The number of each table page, and its level.
    pub(crate) fn levels(&self) -> impl Iterator<Item = (u32, u8)> {
        (0..).zip(&self.pages).filter(|(_, sp)| !sp.free).map(|(table, sp)| (table, sp.key.level))
    }

    /// What each shadow page is for that is not obsolete.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &SpKey> {
        self.pages.iter().filter(|sp| !sp.free && sp.generation == self.generation).map(|sp| &sp.key)
    }

    pub(crate) fn key(&self, table: u32) -> &SpKey {
        &self.sp(table).key
    }

    /// The first frame that a leaf entry maps, worked out from where it is: rmap's remove key (`kvm_mmu_page_get_gfn()`).
    pub(crate) fn gfn_of(&self, at: Sptep) -> Gfn {
        let sp = self.sp(at.table);
        if sp.key.direct {
            sp.key.gfn.add(u64::from(at.index) * pages_of_entry(at.level))
        } else {
            sp.gfns[usize::from(at.index)]
        }
    }

    /// The leaf at `at` is for `gfn`. What is of the direct kind knows that from where it is (`kvm_mmu_page_set_gfn()`).
    pub(crate) fn set_gfn(&mut self, at: Sptep, gfn: Gfn) {
        let sp = self.sp_mut(at.table);
        if !sp.key.direct {
            sp.gfns[usize::from(at.index)] = gfn;
        }
    }

    /// The pages that stand for the guest's table in `gfn` (`for_each_gfn_indirect_valid_sp()`).
    pub(crate) fn indirect_of(&self, gfn: Gfn) -> impl Iterator<Item = u32> {
        let bucket = bucket_of(&SpKey::direct(gfn, Alias::NONE, 1));
        let for_gfn = move |key: &SpKey| !key.direct && key.gfn == gfn;
        self.buckets[bucket].iter().copied().filter(move |&table| for_gfn(self.key(table)))
    }

    /// All pages but the root.
    pub(crate) fn active(&self) -> impl Iterator<Item = u32> {
        self.active.iter().copied()
    }

    pub(crate) fn is_unsync(&self, table: u32) -> bool {
        self.sp(table).unsync
    }

    pub(crate) fn set_unsync(&mut self, table: u32, unsync: bool) {
        self.sp_mut(table).unsync = unsync;
    }

    /// The first address that a leaf entry translates.
    pub(crate) fn gpa_of(&self, stolen: StolenMask, at: Sptep) -> Gpa {
        stolen.join(self.gfn_of(at), self.key(at.table).alias)
    }

    /// `child` is the table that `at` leads to.
    pub(crate) fn link<F: Format>(&mut self, tables: &Tables<F>, child: u32, at: Sptep) {
        self.sp_mut(child).parents.push(at);
        tables.set(at, Entry::link(child));
    }

    /// The pages that are in one bucket of the hash with `key`.
    pub(crate) fn bucket(&self, key: &SpKey) -> impl Iterator<Item = u32> {
        self.buckets[bucket_of(key)].iter().copied()
    }

    /// `table` is found by `key` from now on, and can be recycled.
    pub(crate) fn hash(&mut self, table: u32, key: &SpKey) {
        self.buckets[bucket_of(key)].push(table);
        self.active.push_back(table);
    }

    /// Forget every MMIO entry.
    pub(crate) fn drop_mmio<F: Format>(&self, tables: &Tables<F>) {
        for (at, _) in self.mmio_entries(tables) {
            tables.set(at, Entry::ABSENT);
        }
    }

    /// Every MMIO entry, whether it is still believed or not.
    pub(crate) fn mmio_entries<F: Format>(&self, tables: &Tables<F>) -> impl Iterator<Item = (Sptep, Entry<F>)> {
        let leaf_tables = self.levels().filter(|(_, level)| *level == 1);
        let entries = leaf_tables.flat_map(|(table, _)| tables.entries(table, 1));
        entries.filter(|(_, entry)| entry.mmio_generation().is_some())
    }
}

/// Kept poor on purpose, as KVM's is: neighbours share buckets, so a match must compare the whole key.
fn bucket_of(key: &SpKey) -> usize {
    let mixed = (key.gfn.raw() | key.alias.raw()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 60) as usize
}
