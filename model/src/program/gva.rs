//! A guest virtual page, named by the entries that translate it.

use super::GuestPaging;
use crate::limits::{GPTES, GUEST_LEVELS};

/// A guest virtual page, as the index of its entry at each level: two bits a level, the lowest level lowest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub struct Gva(u16);

impl Gva {
    /// The page that these entries translate, from the root table downwards; each index modulo [`GPTES`], and of more than
    /// [`GUEST_LEVELS`] the last.
    pub fn new(indices: &[u8]) -> Self {
        Self(indices.iter().fold(0, |gva, &index| gva << Self::BITS | u16::from(index % GPTES as u8)))
    }

    const BITS: u32 = GPTES.trailing_zeros();

    /// The index of its entry in a table of `level`, which is 1 for the lowest.
    pub const fn index(self, level: u8) -> u8 {
        (self.0 >> (Self::BITS * (level as u32 - 1))) as u8 % GPTES as u8
    }

    /// The same through entry `index` of the table of `level`.
    #[must_use]
    pub const fn with_index(self, level: u8, index: u8) -> Self {
        let shift = Self::BITS * (level as u32 - 1);
        Self(self.0 & !((GPTES as u16 - 1) << shift) | ((index % GPTES as u8) as u16) << shift)
    }

    /// The indices of a walk through `levels` levels, the root's first.
    pub fn indices(self, levels: u8) -> impl Iterator<Item = u8> {
        (1..=levels).rev().map(move |level| self.index(level))
    }

    /// The same without what a walk through `levels` levels does not use.
    pub const fn of_levels(self, levels: u8) -> Self {
        Self(self.0 & ((1 << (Self::BITS * levels as u32)) - 1))
    }

    /// How many pages it lies above the start of what an entry of a table of `level` translates.
    pub fn offset(self, paging: GuestPaging, level: u8) -> u64 {
        (1..level).map(|below| u64::from(self.index(below)) * paging.pages(below)).sum()
    }
}

const _: () = assert!(
    GPTES <= u8::MAX as usize && GPTES.is_power_of_two() && GUEST_LEVELS * Gva::BITS as usize <= u16::BITS as usize
);
