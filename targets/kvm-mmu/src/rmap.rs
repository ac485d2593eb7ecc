//! The reverse map: for each gfn the SPTEs that map it, whatever their alias.

use crate::tables::Sptep;
use gpa_model::Gfn;
use smallvec::SmallVec;

/// The SPTEs of one gfn, at most one an alias.
type Chain = SmallVec<[Sptep; 8]>;

/// A hash table from gfn to its SPTEs: open addressing with a fixed hash, so that its order is the same in every run. The
/// chains themselves lie side by side, so that a look at a wide range of gfns can go through those there are.
#[derive(Debug)]
pub(crate) struct Rmap {
    /// One more than the position of a chain, or 0.
    index: Vec<u32>,
    chains: Vec<(Gfn, Chain)>,
    used: usize,
}

impl Rmap {
    pub(crate) fn new() -> Self {
        Self { index: vec![0; 256], chains: Vec::new(), used: 0 }
    }

    /// Forget everything; the chains are kept and reused.
    pub(crate) fn clear(&mut self) {
        if self.used > 0 {
            self.index.fill(0);
            self.used = 0;
        }
    }

    /// Where in the index `gfn` is, or would be.
    fn position(&self, gfn: Gfn) -> usize {
        let mask = self.index.len() - 1;
        let mut at = (gfn.raw().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & mask;
        while self.index[at] != 0 && self.chains[self.index[at] as usize - 1].0 != gfn {
            at = (at + 1) & mask;
        }
        at
    }

    fn find(&self, gfn: Gfn) -> Option<u32> {
        self.index[self.position(gfn)].checked_sub(1)
    }

    /// `at` now maps `gfn`.
    pub(crate) fn add(&mut self, gfn: Gfn, at: Sptep) {
        if self.used * 2 >= self.index.len() {
            self.grow();
        }
        let position = self.position(gfn);
        if self.index[position] == 0 {
            match self.chains.get_mut(self.used) {
                Some(chain) => {
                    chain.0 = gfn;
                    chain.1.clear();
                }
                None => self.chains.push((gfn, Chain::new())),
            }
            self.used += 1;
            self.index[position] = self.used as u32;
        }
        self.chains[self.index[position] as usize - 1].1.push(at);
    }

    /// `at` does not map `gfn` any more.
    pub(crate) fn remove(&mut self, gfn: Gfn, at: Sptep) {
        if let Some(found) = self.find(gfn) {
            let chain = &mut self.chains[found as usize].1;
            if let Some(i) = chain.iter().position(|other| *other == at) {
                chain.swap_remove(i);
            }
        }
    }

    /// The chains of the gfns among `pages` pages from `first`.
    pub(crate) fn within(&self, first: Gfn, pages: u64) -> impl Iterator<Item = &[Sptep]> {
        // Either one by one, or, where there are more pages than chains, all chains.
        let few = pages <= self.used as u64;
        let one_by_one = (0..if few { pages } else { 0 }).filter_map(move |page| self.find(first.add(page)));
        let all = self.chains[..if few { 0 } else { self.used }].iter();
        let inside = move |gfn: Gfn| gfn.offset_from(first).is_some_and(|offset| offset < pages);
        let one_by_one = one_by_one.map(|at| &self.chains[at as usize]);
        one_by_one.chain(all.filter(move |(gfn, _)| inside(*gfn))).map(|(_, chain)| &chain[..])
    }

    /// Every SPTE with the gfn it is listed under.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Gfn, Sptep)> {
        self.chains[..self.used].iter().flat_map(|(gfn, chain)| chain.iter().map(|at| (*gfn, *at)))
    }

    fn grow(&mut self) {
        self.index = vec![0; self.index.len() * 2];
        for at in 0..self.used {
            let position = self.position(self.chains[at].0);
            self.index[position] = at as u32 + 1;
        }
    }
}
