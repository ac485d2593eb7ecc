//! Visits the entries that translate a range of gfns from one root, in ascending order, parents first (`tdp_iter.c`).
//!
//! Gfns carry no stolen bit here; the bit of the root is added only for the look-up of an entry. Absent entries are
//! skipped, except the one that a descent ends at. So the length of a walk depends on what is mapped, not on the range.

use crate::tables::spte::{Entry, Format, index, pages_of_entry};
use crate::tables::table_pages::{Sptep, Tables};
use gpa_model::{Alias, Gfn, StolenMask};

const LEVELS: usize = 5;

/// An iterator over entries.
pub(crate) struct TdpIter<'a, F> {
    tables: &'a Tables<F>,
    /// The stolen bits of the root (`gfn_bits`).
    alias: Alias,
    stolen: StolenMask,
    /// The tables on the path, by level.
    path: [u32; LEVELS + 1],
    level: u8,
    /// The first gfn of the current entry.
    gfn: Gfn,
    /// The gfn that the walk has reached (`next_last_level_gfn`).
    next: Gfn,
    end: Gfn,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Descend from the root to the gfn that the walk has reached.
    Descend,
    /// Go on to the entry after the current one.
    Advance,
    Over,
}

impl<'a, F: Format> TdpIter<'a, F> {
    /// Visits the entries that translate `pages` gfns from `first`, under `alias`, from `root`.
    pub(crate) fn new(tables: &'a Tables<F>, root: u32, alias: Alias, first: Gfn, pages: u64) -> Self {
        let stolen = tables.direct_bits();
        let level = tables.root_level();
        let mut path = [0; LEVELS + 1];
        path[usize::from(level)] = root;
        // Gfns end at the bit of the root (`WARN_ON_ONCE(start >= gfn_bits)`).
        let top = if alias.is_none() { u64::MAX } else { alias.raw() };
        let end = first.add(pages).min(Gfn::new(top));
        let state = if first < end { State::Descend } else { State::Over };
        Self { tables, alias, stolen, path, level, gfn: first, next: first, end, state }
    }

    fn here(&self) -> Sptep {
        let gpa = self.stolen.join(self.gfn, self.alias);
        Sptep::new(self.path[usize::from(self.level)], index(gpa, self.level), self.level)
    }

    fn descend(&mut self) {
        self.level = self.tables.root_level();
        self.gfn = self.next.align_down(pages_of_entry(self.level));
    }

    /// Goes down to the table that the entry links (`try_step_down()`).
    fn step_down(&mut self) -> bool {
        let entry = self.tables.get(self.here());
        if !entry.is_present() || entry.is_leaf(self.level) {
            return false;
        }
        self.level -= 1;
        self.path[usize::from(self.level)] = entry.table();
        self.gfn = self.next.align_down(pages_of_entry(self.level));
        true
    }

    /// Goes to the next present entry of the same table (`try_step_side()`).
    fn step_side(&mut self) -> bool {
        let here = self.here();
        let Some((next, _)) = self.tables.next_entry(here) else { return false };
        self.gfn = self.gfn.add(u64::from(next.index - here.index) * pages_of_entry(self.level));
        self.next = self.gfn;
        true
    }

    /// Goes up to the entry that links this table (`try_step_up()`).
    fn step_up(&mut self) -> bool {
        if self.level == self.tables.root_level() {
            return false;
        }
        self.level += 1;
        self.gfn = self.gfn.align_down(pages_of_entry(self.level));
        true
    }

    fn advance(&mut self) -> bool {
        if self.step_down() {
            return true;
        }
        // The next entry, in this table or in one above, is for later gfns.
        while self.gfn.add(pages_of_entry(self.level)) < self.end {
            if self.step_side() {
                return true;
            }
            if !self.step_up() {
                return false;
            }
        }
        false
    }
}

impl<F: Format> Iterator for TdpIter<'_, F> {
    type Item = (Sptep, Entry<F>);

    fn next(&mut self) -> Option<Self::Item> {
        let found = match self.state {
            State::Over => false,
            State::Advance => self.advance(),
            State::Descend => {
                self.descend();
                true
            }
        };
        if !found || self.gfn >= self.end {
            self.state = State::Over;
            return None;
        }
        self.state = State::Advance;
        let at = self.here();
        Some((at, self.tables.get(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::roots::Root;
    use crate::tables::spte::Ept;
    use gpa_model::{Gpa, Levels};
    use std::collections::BTreeSet;

    /// The leaf entry for `gpa`, with the tables on the path. `used` is the first unused table number.
    fn leaf_or_alloc(tables: &Tables<Ept>, gpa: Gpa, used: &mut u32) -> Sptep {
        let mut table = tables.root_of(gpa);
        for level in (2..=tables.root_level()).rev() {
            let at = Sptep::new(table, index(gpa, level), level);
            if !tables.get(at).is_present() {
                tables.set(at, Entry::link(*used));
                *used += 1;
            }
            table = tables.get(at).table();
        }
        Sptep::new(table, index(gpa, 1), 1)
    }

    /// Compares with a set of gfns. Any other item is a link, or the absent entry that a descent ended at.
    #[test]
    fn a_walk_is_as_long_as_what_is_there() {
        let direct = StolenMask::new(&[40]).unwrap();
        let aliases = Root::ALL.map(|root| root.alias(direct));
        let (mut tables, mut next) = (Tables::<Ept>::new(Levels::Four), 1u64);
        tables.split_roots(direct);
        let mut used = aliases.len() as u32;
        let mut gfns = aliases.map(|_| BTreeSet::new());
        let mut draw = |below: u64| {
            next = next.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (next >> 33) % below
        };
        for _ in 0..10_000 {
            let gfn = draw(2) << 27 | draw(3) << 18 | draw(3) << 9 | draw(512);
            let (root, pages) = (draw(2) as usize, 1 << draw(28));
            let (gfns, alias, first) = (&mut gfns[root], aliases[root], Gfn::new(gfn));
            let gpa = direct.join(first, alias);
            let at = leaf_or_alloc(&tables, gpa, &mut used);
            let entry = if gfns.remove(&gfn) || draw(8) == 0 { Entry::ABSENT } else { Entry::mmio(first, 0) };
            if entry != Entry::ABSENT {
                gfns.insert(gfn);
            }
            tables.set(at, entry);

            let walk: Vec<_> = TdpIter::new(&tables, tables.root(Root::ALL[root]), alias, first, pages).collect();
            let found = walk.iter().filter_map(|(_, entry)| entry.mmio_generation().map(|_| entry.mmio_gfn().raw()));
            assert!(found.eq(gfns.range(gfn..gfn + pages).copied()), "{first:?} {pages} {walk:?}");
            let most = gfns.range(gfn..gfn + pages).count() + 2 * used as usize;
            assert!(walk.len() <= most, "{first:?} {pages} {walk:?}");
        }
    }
}
