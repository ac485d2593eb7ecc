//! A present translation, as a walk of the tables of a target finds it.

use crate::addr::{Level, Pfn};
use crate::program::Rights;
use std::fmt;
use std::num::NonZeroU64;

/// A present translation as a walk of the target's tables finds it: the page of the address that was asked for, the rights
/// to it, and the level of the leaf.
///
/// Packed into one word (rights in bits 0 to 2, level in 3 and 4, the page where page tables hold it) so that two
/// compare quickly.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spte(NonZeroU64);

impl Spte {
    /// A translation to `pfn` with `rights`, or `None` if it grants nothing and so is not present.
    #[inline]
    pub const fn new(pfn: Pfn, rights: Rights) -> Option<Self> {
        if rights.is_none() { None } else { Self::from_raw(pfn.in_entry() | rights.bits() as u64) }
    }

    /// The same as part of a leaf of `level`.
    #[must_use]
    #[inline]
    pub const fn at_level(self, level: Level) -> Self {
        // Rights are not zero, so neither is the whole.
        match Self::from_raw(self.raw() & !(LEVEL_MASK << LEVEL_SHIFT) | (level as u64) << LEVEL_SHIFT) {
            Some(spte) => spte,
            None => self,
        }
    }

    /// The packed form; `None` for 0, which is how an absent translation is packed.
    #[inline]
    pub const fn from_raw(raw: u64) -> Option<Self> {
        match NonZeroU64::new(raw) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }

    /// The packed form.
    #[inline]
    pub const fn raw(self) -> u64 {
        self.0.get()
    }

    /// The page.
    #[inline]
    pub const fn pfn(self) -> Pfn {
        Pfn::of_entry(self.0.get())
    }

    /// What the guest may do with it.
    #[inline]
    pub const fn rights(self) -> Rights {
        Rights::from_bits(self.0.get() as u8)
    }

    /// How much the leaf translates.
    #[inline]
    pub const fn level(self) -> Level {
        match self.0.get() >> LEVEL_SHIFT & LEVEL_MASK {
            0 => Level::Page4K,
            1 => Level::Page2M,
            _ => Level::Page1G,
        }
    }
}

const LEVEL_SHIFT: u32 = 3;

const LEVEL_MASK: u64 = 3;

impl fmt::Display for Spte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pfn(), self.rights())?;
        if self.level() == Level::Page4K { Ok(()) } else { write!(f, " {}", self.level().name()) }
    }
}

impl fmt::Debug for Spte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
