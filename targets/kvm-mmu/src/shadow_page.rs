//! Shadow pages: the radix tables, what each table page is for, and the hash that finds one again.

use crate::policy::Policy;
use crate::spte::{ENTRIES, Entry, ROOT_LEVEL, index, pages_of_table};
use gpa_model::{Alias, Gfn, Gpa, Spte, StolenMask};

/// What a shadow page is for: the first frame it translates, under which alias, at which level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpKey {
    /// First frame, without stolen bits.
    pub gfn: Gfn,
    /// The alias of the addresses that lead here. Meaningless above the level where paths of two aliases part.
    pub alias: Alias,
    /// 1 for a table of leaves, 4 for the root.
    pub level: u8,
}

/// Where an entry is: table number and index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sptep {
    pub(crate) table: u32,
    pub(crate) index: u16,
}

impl Sptep {
    pub(crate) const fn new(table: u32, index: usize) -> Self {
        Self { table, index: index as u16 }
    }
}

#[repr(align(4096))]
struct TablePage([Entry; ENTRIES]);

struct ShadowPage {
    key: SpKey,
    page: Box<TablePage>,
}

const BUCKETS: usize = 16;

/// All shadow pages of a VM. Table 0 is the root.
pub(crate) struct ShadowPages {
    pages: Vec<ShadowPage>,
    used: usize,
    buckets: Box<[Vec<u32>; BUCKETS]>,
}

impl std::fmt::Debug for ShadowPages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys()).finish()
    }
}

impl ShadowPages {
    /// Just the root.
    pub(crate) fn new() -> Self {
        let mut new = Self { pages: Vec::new(), used: 0, buckets: Box::new([const { Vec::new() }; BUCKETS]) };
        new.alloc(SpKey { gfn: Gfn::new(0), alias: Alias::NONE, level: ROOT_LEVEL });
        new
    }

    /// Back to just the root; the table pages are kept and reused.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
        for bucket in self.buckets.iter_mut() {
            bucket.clear();
        }
        self.alloc(SpKey { gfn: Gfn::new(0), alias: Alias::NONE, level: ROOT_LEVEL });
    }

    fn alloc(&mut self, key: SpKey) -> u32 {
        match self.pages.get_mut(self.used) {
            Some(sp) => {
                sp.key = key;
                sp.page.0.fill(Entry::ABSENT);
            }
            None => self.pages.push(ShadowPage { key, page: Box::new(TablePage([Entry::ABSENT; ENTRIES])) }),
        }
        self.used += 1;
        self.used as u32 - 1
    }

    /// What each shadow page is for.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &SpKey> {
        self.pages[..self.used].iter().map(|sp| &sp.key)
    }

    pub(crate) fn key(&self, table: u32) -> &SpKey {
        &self.pages[table as usize].key
    }

    /// The frame that a leaf entry maps, worked out from where it is: rmap's remove key (`kvm_mmu_page_get_gfn()`).
    pub(crate) fn gfn_of(&self, at: Sptep) -> Gfn {
        self.key(at.table).gfn.add(u64::from(at.index))
    }

    /// The address that a leaf entry translates.
    pub(crate) fn gpa_of(&self, stolen: StolenMask, at: Sptep) -> Gpa {
        stolen.join(self.gfn_of(at), self.key(at.table).alias)
    }

    pub(crate) fn get(&self, at: Sptep) -> Entry {
        self.pages[at.table as usize].page.0[usize::from(at.index)]
    }

    pub(crate) fn set(&mut self, at: Sptep, entry: Entry) {
        self.pages[at.table as usize].page.0[usize::from(at.index)] = entry;
    }

    /// The leaf table that translates `gpa`, if the path to it exists.
    fn leaf_table(&self, gpa: Gpa) -> Option<u32> {
        let mut table = 0;
        for level in (2..=ROOT_LEVEL).rev() {
            let entry = self.get(Sptep::new(table, index(gpa, level)));
            if !entry.is_present() {
                return None;
            }
            table = entry.table();
        }
        Some(table)
    }

    /// The leaf entry for `gpa`, present or not, if the path to it exists.
    pub(crate) fn leaf(&self, gpa: Gpa) -> Option<Sptep> {
        self.leaf_table(gpa).map(|table| Sptep::new(table, index(gpa, 1)))
    }

    /// The leaf entry for `walked`, making the path. The shadow pages on it are for `gfn` and `alias`
    /// (`__direct_map()`, `__kvm_mmu_get_page()`).
    pub(crate) fn leaf_or_alloc<P: Policy>(&mut self, walked: Gpa, gfn: Gfn, alias: Alias) -> Sptep {
        let mut table = 0;
        for level in (2..=ROOT_LEVEL).rev() {
            let at = Sptep::new(table, index(walked, level));
            let entry = self.get(at);
            table = if entry.is_present() {
                entry.table()
            } else {
                let gfn = gfn.align_down(pages_of_table(level - 1));
                let child = self.find_or_alloc::<P>(SpKey { gfn, alias, level: level - 1 });
                self.set(at, Entry::link(child));
                child
            };
        }
        Sptep::new(table, index(walked, 1))
    }

    fn find_or_alloc<P: Policy>(&mut self, key: SpKey) -> u32 {
        let bucket = bucket_of(&key);
        let found = self.buckets[bucket].iter().find(|&&table| P::same_shadow_page(self.key(table), &key));
        if let Some(&table) = found {
            return table;
        }
        let table = self.alloc(P::stored_key(key));
        self.buckets[bucket_of(&P::stored_key(key))].push(table);
        table
    }

    /// Forget every MMIO entry.
    pub(crate) fn drop_mmio(&mut self) {
        for sp in self.pages[..self.used].iter_mut().filter(|sp| sp.key.level == 1) {
            for entry in sp.page.0.iter_mut().filter(|entry| entry.mmio_generation().is_some()) {
                *entry = Entry::ABSENT;
            }
        }
    }

    /// What the tables say about `gpa`.
    pub(crate) fn walk(&self, gpa: Gpa) -> Option<Spte> {
        self.leaf(gpa).and_then(|at| self.get(at).spte())
    }

    /// The same for consecutive pages, one walk a table.
    pub(crate) fn walk_window(&self, gpa: Gpa, out: &mut [Option<Spte>]) {
        let mut done = 0;
        while done < out.len() {
            let at = gpa.add_pages(done as u64);
            let first = index(at, 1);
            let run = (ENTRIES - first).min(out.len() - done);
            let out = &mut out[done..done + run];
            match self.leaf_table(at) {
                None => out.fill(None),
                Some(table) => {
                    let entries = &self.pages[table as usize].page.0[first..first + run];
                    for (out, entry) in out.iter_mut().zip(entries) {
                        *out = entry.spte();
                    }
                }
            }
            done += run;
        }
    }
}

/// Kept poor on purpose, as KVM's is: neighbours share buckets, so a match must compare the whole key.
fn bucket_of(key: &SpKey) -> usize {
    let mixed = (key.gfn.raw() | key.alias.raw()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 60) as usize
}
