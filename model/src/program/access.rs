//! What a guest access does with a page, and the rights that it needs.

use crate::variants::all;
use std::fmt;
use strum::{EnumCount, IntoStaticStr, VariantArray};

/// What a guest access does with the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, EnumCount, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Access {
    /// A data read.
    Read,
    /// A data write.
    Write,
    /// An instruction fetch.
    Execute,
}

impl Access {
    /// All of them.
    pub const ALL: [Access; Access::COUNT] = all(Access::VARIANTS);

    /// The word for it in the text format.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// What a translation lets the guest do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Rights(u8);

impl Rights {
    /// Nothing.
    pub const NONE: Rights = Rights(0);
    /// Data reads.
    pub const R: Rights = Rights(1);
    /// Data writes.
    pub const W: Rights = Rights(2);
    /// Instruction fetches.
    pub const X: Rights = Rights(4);
    /// Reads and fetches.
    pub const RX: Rights = Rights(5);
    /// Everything.
    pub const RWX: Rights = Rights(7);

    /// The rights whose bits (R 1, W 2, X 4) are set.
    #[inline]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 7)
    }

    /// R 1, W 2, X 4.
    #[inline]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The right that `access` needs.
    #[inline]
    pub const fn needed(access: Access) -> Self {
        match access {
            Access::Read => Self::R,
            Access::Write => Self::W,
            Access::Execute => Self::X,
        }
    }

    /// Whether all of `other` is in `self`.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Rights in both.
    #[inline]
    pub const fn intersect(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Rights in either.
    #[inline]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Rights of `self` that are not in `other`.
    #[inline]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is none.
    #[inline]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (right, letter) in [(Self::R, 'r'), (Self::W, 'w'), (Self::X, 'x')] {
            write!(f, "{}", if self.contains(right) { letter } else { '-' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
