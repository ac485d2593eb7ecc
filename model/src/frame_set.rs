//! Sets of frames of the window of a VM, one bit each.

use crate::limits::FRAMES;
use std::fmt;

/// A set of frames of the window, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct FrameSet(u64);

impl FrameSet {
    /// No frame.
    pub const EMPTY: FrameSet = FrameSet(0);
    /// Every frame of the window.
    pub const ALL: FrameSet = FrameSet(u64::MAX);

    /// The frames whose bits are set in `bits`.
    #[inline]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// One bit a frame.
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Just `frame`.
    #[inline]
    pub const fn one(frame: usize) -> Self {
        Self(1 << frame)
    }

    /// `pages` frames from `frame`, cut off at the end of the window.
    #[inline]
    pub const fn range(frame: usize, pages: usize) -> Self {
        if frame >= FRAMES || pages == 0 {
            return Self::EMPTY;
        }
        let ones = if pages >= FRAMES { u64::MAX } else { (1 << pages) - 1 };
        Self(ones << frame)
    }

    /// Whether `frame` is in the set.
    #[inline]
    pub const fn contains(self, frame: usize) -> bool {
        self.0 >> frame & 1 != 0
    }

    /// Whether the set is empty.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many frames it holds.
    #[inline]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Frames in either.
    #[inline]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Frames in both.
    #[inline]
    pub const fn intersect(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Frames of `self` that are not in `other`.
    #[inline]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether some frames of `leaf` are in the set and some are not.
    #[inline]
    pub fn divides(self, leaf: Self) -> bool {
        let inside = leaf.intersect(self);
        !inside.is_empty() && inside != leaf
    }

    /// The same frames as seen from `to` instead of `from`; what leaves the window is lost.
    #[inline]
    pub const fn moved(self, from: usize, to: usize) -> Self {
        if to >= from { Self(self.0 << (to - from)) } else { Self(self.0 >> (from - to)) }
    }

    /// All frames from the lowest to the highest of the set.
    #[inline]
    pub const fn hull(self) -> Self {
        if self.0 == 0 {
            return Self::EMPTY;
        }
        Self((u64::MAX << self.0.trailing_zeros()) & (u64::MAX >> self.0.leading_zeros()))
    }

    /// The lowest frame.
    #[inline]
    pub const fn first(self) -> Option<usize> {
        if self.0 == 0 { None } else { Some(self.0.trailing_zeros() as usize) }
    }

    /// The frames, ascending.
    #[inline]
    pub fn iter(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let frame = Self(left).first()?;
            left &= left - 1;
            Some(frame)
        })
    }
}

impl fmt::Debug for FrameSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
