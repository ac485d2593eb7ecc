//! The reverse map: for each gfn the SPTEs that map it, whatever their alias.

use crate::tables::Sptep;
use gpa_model::Gfn;
use smallvec::SmallVec;

/// The SPTEs of one gfn, at most one an alias.
pub(crate) type Chain = SmallVec<[Sptep; 8]>;

/// A hash table from gfn to its SPTEs: open addressing with a fixed hash, so that its order is the same in every run.
#[derive(Debug)]
pub(crate) struct Rmap {
    slots: Vec<Option<(Gfn, Chain)>>,
    used: usize,
}

impl Rmap {
    pub(crate) fn new() -> Self {
        Self { slots: empty(256), used: 0 }
    }

    pub(crate) fn clear(&mut self) {
        if self.used > 0 {
            self.slots.fill_with(|| None);
            self.used = 0;
        }
    }

    fn position(&self, gfn: Gfn) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = (gfn.raw().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & mask;
        while self.slots[at].as_ref().is_some_and(|(key, _)| *key != gfn) {
            at = (at + 1) & mask;
        }
        at
    }

    /// `at` now maps `gfn`.
    pub(crate) fn add(&mut self, gfn: Gfn, at: Sptep) {
        if self.used * 2 >= self.slots.len() {
            self.grow();
        }
        let position = self.position(gfn);
        let slot = &mut self.slots[position];
        if slot.is_none() {
            self.used += 1;
        }
        slot.get_or_insert_with(|| (gfn, Chain::new())).1.push(at);
    }

    /// `at` does not map `gfn` any more.
    pub(crate) fn remove(&mut self, gfn: Gfn, at: Sptep) {
        let position = self.position(gfn);
        if let Some((_, chain)) = &mut self.slots[position]
            && let Some(i) = chain.iter().position(|other| *other == at)
        {
            chain.swap_remove(i);
        }
    }

    /// The SPTEs that map `gfn`.
    pub(crate) fn chain(&self, gfn: Gfn) -> &[Sptep] {
        self.slots[self.position(gfn)].as_ref().map_or(&[], |(_, chain)| chain)
    }

    /// Every SPTE with the gfn it is listed under.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Gfn, Sptep)> {
        self.slots.iter().flatten().flat_map(|(gfn, chain)| chain.iter().map(|at| (*gfn, *at)))
    }

    fn grow(&mut self) {
        let bigger = empty(self.slots.len() * 2);
        for entry in std::mem::replace(&mut self.slots, bigger).into_iter().flatten() {
            let position = self.position(entry.0);
            self.slots[position] = Some(entry);
        }
    }
}

fn empty(len: usize) -> Vec<Option<(Gfn, Chain)>> {
    std::iter::repeat_with(|| None).take(len).collect()
}
