//! How much one leaf translates, and the addresses that one leaf or one flush is about.

use super::{Gpa, TABLE_SHIFT};

/// How much one leaf translates (`PG_LEVEL_4K` and so on).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Level {
    /// One page.
    #[default]
    Page4K,
    /// 512 pages.
    Page2M,
    /// 512 times 512 pages.
    Page1G,
}

impl Level {
    /// All of them, the smallest first.
    pub const ALL: [Level; 3] = [Level::Page4K, Level::Page2M, Level::Page1G];
    /// Those above 4 KiB, the largest first: the order in which a fault tries them.
    pub const LARGE: [Level; 2] = [Level::Page1G, Level::Page2M];

    /// Pages of a leaf (`KVM_PAGES_PER_HPAGE()`).
    #[inline]
    pub const fn pages(self) -> u64 {
        1 << (TABLE_SHIFT * self as u32)
    }

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Page4K => "4K",
            Level::Page2M => "2M",
            Level::Page1G => "1G",
        }
    }

    /// The next smaller one; 4 KiB is its own.
    #[must_use]
    pub const fn smaller(self) -> Self {
        match self {
            Level::Page4K | Level::Page2M => Level::Page4K,
            Level::Page1G => Level::Page2M,
        }
    }
}

/// The consecutive addresses that are flushed, or that one leaf translates: pages with their stolen bits, which are the
/// same for all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The first address.
    pub start: Gpa,
    /// How many pages.
    pub pages: u64,
}

impl Span {
    /// What the leaf of `level` that translates `gpa` translates.
    #[inline]
    pub const fn of_leaf(gpa: Gpa, level: Level) -> Self {
        Self { start: Gpa::from_page(gpa.page() & !(level.pages() - 1)), pages: level.pages() }
    }

    /// Whether all of `other` lies within.
    #[inline]
    pub const fn covers(self, other: Self) -> bool {
        match other.start.page().checked_sub(self.start.page()) {
            Some(offset) => offset < self.pages && other.pages <= self.pages - offset,
            None => false,
        }
    }
}
