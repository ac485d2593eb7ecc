//! Ranges of host pages: what the host does something to.

use crate::addr::{HostPage, Level};

/// Consecutive host pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct HostPageRange {
    /// The first.
    pub start: HostPage,
    /// How many, at least 1.
    pub pages: u32,
}

impl HostPageRange {
    /// Whether `hva` is one of them.
    pub const fn contains(&self, hva: HostPage) -> bool {
        hva.page() >= self.start.page() && hva.page() < self.end()
    }

    /// Each page.
    pub fn iter(&self) -> impl Iterator<Item = HostPage> + use<> {
        let start = self.start;
        (0..u64::from(self.pages)).map(move |page| start.add(page))
    }

    /// The first page after the last.
    pub const fn end(&self) -> u64 {
        self.start.page() + self.pages as u64
    }

    /// Whether any page is in both.
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.start.page() < other.end() && other.start.page() < self.end()
    }

    /// Whether every page of `other` is in `self`.
    pub const fn covers(&self, other: &Self) -> bool {
        self.start.page() <= other.start.page() && other.end() <= self.end()
    }

    /// Whether it holds a whole huge page, aligned as huge pages are.
    pub const fn holds_huge(&self) -> bool {
        let huge = Level::Page2M.pages();
        let first = self.start.add(huge - 1).align_down(huge).page();
        first + huge <= self.end()
    }
}
