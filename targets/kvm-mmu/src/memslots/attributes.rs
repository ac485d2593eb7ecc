//! Memory attributes: which gfns are private, and which are changing.

use crate::memslots::gfn_ranges::GfnRanges;
use gpa_model::Gfn;

/// A change that has begun and not ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) first: Gfn,
    pub(crate) pages: u64,
    pub(crate) private: bool,
}

/// Which gfns are private, and which are changing.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    pub(crate) private: GfnRanges,
    pub(crate) change: Option<Change>,
}

impl Attributes {
    pub(crate) fn clear(&mut self) {
        self.private.clear();
        self.change = None;
    }

    /// Whether `gfn` is private (`kvm_mem_is_private()`).
    pub(crate) fn is_private(&self, gfn: Gfn) -> bool {
        self.private.contains(gfn)
    }

    /// Whether the attributes of any of `pages` gfns from `first` are changing.
    pub(crate) fn is_changing(&self, first: Gfn, pages: u64) -> bool {
        self.change.is_some_and(|change| change.first < first.add(pages) && first < change.first.add(change.pages))
    }

    /// Whether `pages` gfns from `first` are all private or all shared.
    pub(crate) fn are_alike(&self, first: Gfn, pages: u64) -> bool {
        !self.private.divides(first, pages)
    }
}
