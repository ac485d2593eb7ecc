//! Shadow pages: what each table page is for, and the hash that finds one again. Under the `mmu_lock`.

use crate::policy::Policy;
use crate::spte::{Entry, Format, index, pages_of_table};
use crate::tables::{Sptep, Tables};
use gpa_model::{Alias, Gfn, Gpa, Levels, StolenMask};

/// What a shadow page is for: the first frame it translates, under which alias, at which level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpKey {
    /// First frame, without stolen bits.
    pub gfn: Gfn,
    /// The alias of the addresses that lead here. Meaningless above the level where paths of two aliases part.
    pub alias: Alias,
    /// 1 for a table of leaves, 4 or 5 for the root.
    pub level: u8,
}

const BUCKETS: usize = 16;

/// All shadow pages of a VM, by the number of their table page.
pub(crate) struct ShadowPages {
    keys: Vec<SpKey>,
    buckets: Box<[Vec<u32>; BUCKETS]>,
}

impl std::fmt::Debug for ShadowPages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys()).finish()
    }
}

impl ShadowPages {
    /// Just the root.
    pub(crate) fn new(levels: Levels) -> Self {
        Self { keys: vec![root(levels)], buckets: Box::new([const { Vec::new() }; BUCKETS]) }
    }

    /// Back to just the root; the table pages are kept and reused.
    pub(crate) fn clear<F: Format>(&mut self, tables: &mut Tables<F>, levels: Levels) {
        tables.wipe(self.keys.len(), levels);
        self.keys.clear();
        for bucket in self.buckets.iter_mut() {
            bucket.clear();
        }
        self.keys.push(root(levels));
    }

    fn alloc(&mut self, key: SpKey) -> u32 {
        self.keys.push(key);
        self.keys.len() as u32 - 1
    }

    /// What each shadow page is for.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &SpKey> {
        self.keys.iter()
    }

    pub(crate) fn key(&self, table: u32) -> &SpKey {
        &self.keys[table as usize]
    }

    /// The frame that a leaf entry maps, worked out from where it is: rmap's remove key (`kvm_mmu_page_get_gfn()`).
    pub(crate) fn gfn_of(&self, at: Sptep) -> Gfn {
        self.key(at.table).gfn.add(u64::from(at.index))
    }

    /// The address that a leaf entry translates.
    pub(crate) fn gpa_of(&self, stolen: StolenMask, at: Sptep) -> Gpa {
        stolen.join(self.gfn_of(at), self.key(at.table).alias)
    }

    /// The leaf entry for `walked`, making the path. The shadow pages on it are for `gfn` and `alias`
    /// (`__direct_map()`, `__kvm_mmu_get_page()`).
    pub(crate) fn leaf_or_alloc<P: Policy, F: Format>(
        &mut self,
        tables: &Tables<F>,
        walked: Gpa,
        gfn: Gfn,
        alias: Alias,
    ) -> Sptep {
        let mut table = 0;
        for level in (2..=tables.root_level()).rev() {
            let at = Sptep::new(table, index(walked, level));
            let entry = tables.get(at);
            table = if entry.is_present() {
                entry.table()
            } else {
                let gfn = gfn.align_down(pages_of_table(level - 1));
                let child = self.find_or_alloc::<P>(SpKey { gfn, alias, level: level - 1 });
                tables.set(at, Entry::link(child));
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
    pub(crate) fn drop_mmio<F: Format>(&self, tables: &Tables<F>) {
        let leaf_tables = self.keys.iter().zip(0..).filter(|(key, _)| key.level == 1);
        for (at, entry) in leaf_tables.flat_map(|(_, table)| tables.entries(table)) {
            if entry.mmio_generation().is_some() {
                tables.set(at, Entry::ABSENT);
            }
        }
    }
}

const fn root(levels: Levels) -> SpKey {
    SpKey { gfn: Gfn::new(0), alias: Alias::NONE, level: levels.count() }
}

/// Kept poor on purpose, as KVM's is: neighbours share buckets, so a match must compare the whole key.
fn bucket_of(key: &SpKey) -> usize {
    let mixed = (key.gfn.raw() | key.alias.raw()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 60) as usize
}
