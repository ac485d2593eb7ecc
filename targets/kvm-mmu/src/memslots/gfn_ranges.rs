//! A set of gfns, kept as ranges. It describes guest memory whether or not a memslot is there.

use gpa_model::Gfn;

/// Disjoint ranges in ascending order, none adjacent to another: the first gfn, and the one after the last.
#[derive(Debug, Default)]
pub(crate) struct GfnRanges(Vec<(Gfn, Gfn)>);

impl GfnRanges {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds `pages` gfns from `first` to the set, or removes them.
    pub(crate) fn set(&mut self, first: Gfn, pages: u64, inside: bool) {
        let (mut start, mut end) = (first, first.add(pages));
        // The ranges that overlap or touch: they are merged, or cut.
        let from = self.0.partition_point(|&(_, other)| other < start);
        let to = self.0.partition_point(|&(other, _)| other <= end);
        let rest = self.0[from..to].first().zip(self.0[from..to].last()).map(|(first, last)| (first.0, last.1));
        let (before, after) = rest.unwrap_or((start, end));
        if inside {
            (start, end) = (start.min(before), end.max(after));
            self.0.splice(from..to, [(start, end)]);
        } else {
            let kept = [(before, start.max(before)), (end.min(after), after)];
            self.0.splice(from..to, kept.into_iter().filter(|(start, end)| start < end));
        }
    }

    pub(crate) fn contains(&self, gfn: Gfn) -> bool {
        let at = self.0.partition_point(|&(_, other)| other <= gfn);
        self.0.get(at).is_some_and(|&(start, _)| start <= gfn)
    }

    /// Whether some of `pages` gfns from `first` are in the set and some are not.
    pub(crate) fn divides(&self, first: Gfn, pages: u64) -> bool {
        let end = first.add(pages);
        let at = self.0.partition_point(|&(_, other)| other <= first);
        self.0.get(at).is_some_and(|&(start, other)| start < end && !(start <= first && end <= other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares with the same set as one bit a gfn.
    #[test]
    fn ranges_are_the_set_of_their_gfns() {
        let (mut ranges, mut bits, mut next) = (GfnRanges::default(), 0u64, 1u64);
        let mut draw = |below: u64| {
            next = next.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (next >> 33) % below
        };
        for _ in 0..10_000 {
            let (first, pages, inside) = (draw(48), 1 + draw(15), draw(2) == 0);
            let mask = ((1 << pages) - 1) << first;
            ranges.set(Gfn::new(first), pages, inside);
            bits = if inside { bits | mask } else { bits & !mask };
            assert!(ranges.0.windows(2).all(|pair| pair[0].1 < pair[1].0), "{ranges:?}");
            let (first, pages) = (draw(48), 1 + draw(15));
            let mask = ((1 << pages) - 1) << first;
            let divided = bits & mask != 0 && bits & mask != mask;
            assert_eq!(ranges.divides(Gfn::new(first), pages), divided, "{ranges:?} {first} {pages}");
            assert_eq!(ranges.contains(Gfn::new(first)), bits >> first & 1 != 0, "{ranges:?} {first}");
        }
    }
}
