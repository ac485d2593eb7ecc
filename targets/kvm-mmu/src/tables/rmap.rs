//! The reverse map: for each gfn the SPTEs that map it, under any alias. Each leaf level has chains of its own.

use crate::tables::spte::leaf_level;
use crate::tables::table_pages::Sptep;
use gpa_model::{Gfn, Level};
use smallvec::SmallVec;

/// The SPTEs of one gfn, at most one for each alias.
type Chain = SmallVec<[Sptep; 8]>;

/// The first gfn of a leaf, and its level.
type Key = (Gfn, Level);

/// A hash table from gfn and level to SPTEs: open addressing with a fixed hash, so that the order is the same in every
/// run. Chains are stored side by side, so a wide range can be answered by a scan.
#[derive(Debug)]
pub(crate) struct Rmap {
    /// The position of a chain plus one, or 0.
    index: Vec<u32>,
    chains: Vec<(Key, Chain)>,
    used: usize,
    /// The number of chains of each level.
    of_level: [u32; Level::ALL.len()],
}

/// The first size of the index. It is small so that growth is tested.
const INDEX: usize = 64;

impl Rmap {
    pub(crate) fn new() -> Self {
        Self { index: vec![0; INDEX], chains: Vec::new(), used: 0, of_level: [0; Level::ALL.len()] }
    }

    /// Removes all chains. Their allocations are kept.
    pub(crate) fn clear(&mut self) {
        if self.used > 0 {
            // Back to the first size, so that the next program finds what the first one found.
            self.index.clear();
            self.index.resize(INDEX, 0);
            self.used = 0;
            self.of_level = [0; Level::ALL.len()];
        }
    }

    /// The place of `key` in the index, or the place where it would be inserted.
    fn position(&self, key: Key) -> usize {
        let mask = self.index.len() - 1;
        let mixed = key.0.add(key.1 as u64).raw().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut at = (mixed >> 32) as usize & mask;
        while self.index[at] != 0 && self.chains[self.index[at] as usize - 1].0 != key {
            at = (at + 1) & mask;
        }
        at
    }

    fn find(&self, key: Key) -> Option<u32> {
        self.index[self.position(key)].checked_sub(1)
    }

    /// Adds the leaf at `at`, whose first gfn is `gfn`.
    pub(crate) fn add(&mut self, gfn: Gfn, at: Sptep) {
        if self.used * 2 >= self.index.len() {
            self.grow();
        }
        let key = (gfn, leaf_level(at.level));
        let position = self.position(key);
        if self.index[position] == 0 {
            match self.chains.get_mut(self.used) {
                Some(chain) => {
                    chain.0 = key;
                    chain.1.clear();
                }
                None => self.chains.push((key, Chain::new())),
            }
            self.of_level[key.1 as usize] += 1;
            self.used += 1;
            self.index[position] = self.used as u32;
        }
        self.chains[self.index[position] as usize - 1].1.push(at);
    }

    /// Removes the leaf at `at` from the chain of `gfn`.
    pub(crate) fn remove(&mut self, gfn: Gfn, at: Sptep) {
        if let Some(found) = self.find((gfn, leaf_level(at.level))) {
            let chain = &mut self.chains[found as usize].1;
            if let Some(i) = chain.iter().position(|other| *other == at) {
                chain.swap_remove(i);
            }
        }
    }

    /// The chains of leaves of any level that map any of `pages` gfns from `first`.
    pub(crate) fn within(&self, first: Gfn, pages: u64) -> impl Iterator<Item = &[Sptep]> {
        Level::ALL.into_iter().filter(|&level| self.of_level[level as usize] > 0).flat_map(move |level| {
            let start = first.align_down(level.pages());
            let end = first.add(pages);
            let leaves = end.offset_from(start).unwrap_or(0).div_ceil(level.pages());
            // Looks up each key, or scans all chains if there are fewer chains than keys.
            let few = leaves <= self.used as u64;
            let keys = (0..if few { leaves } else { 0 }).map(move |leaf| (start.add(leaf * level.pages()), level));
            let one_by_one = keys.filter_map(|key| self.find(key)).map(|at| &self.chains[at as usize]);
            let all = self.chains[..if few { 0 } else { self.used }].iter();
            let inside = move |key: Key| key.1 == level && start <= key.0 && key.0 < end;
            one_by_one.chain(all.filter(move |(key, _)| inside(*key))).map(|(_, chain)| &chain[..])
        })
    }

    /// Every leaf, with the gfn that it is listed under.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Gfn, Sptep)> {
        self.chains[..self.used].iter().flat_map(|((gfn, _), chain)| chain.iter().map(|at| (*gfn, *at)))
    }

    fn grow(&mut self) {
        self.index = vec![0; self.index.len() * 2];
        for at in 0..self.used {
            let position = self.position(self.chains[at].0);
            self.index[position] = at as u32 + 1;
        }
    }
}
