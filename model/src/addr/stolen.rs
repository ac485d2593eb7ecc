//! Stolen bits: the [`StolenMask`] of a VM, the only way from a [`Gpa`] to a [`Gfn`] and back.

use super::{Alias, Gfn, Gpa, Level, PAGE_SHIFT, TABLE_SHIFT};
use crate::limits;
use std::fmt;

/// Why a stolen bit cannot be where it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StolenBitError {
    /// More bits than [`limits::STOLEN_BITS`].
    TooMany(usize),
    /// The same bit twice.
    Twice(u8),
    /// The bit lies inside what one leaf table maps: two aliases would share a table, and rmap keys would no longer match.
    InsideLeafTable {
        /// The bit asked for.
        bit: u8,
        /// The lowest bit that is legal with leaves as large as the VM can have.
        lowest: u8,
    },
    /// The bit lies above what the root table translates.
    AboveRoot {
        /// The bit asked for.
        bit: u8,
        /// The highest bit that is legal with as many levels as the tables have.
        highest: u8,
    },
    /// The bit is also an ordinary address bit of the guest's frames.
    InsideFrames {
        /// The bit asked for.
        bit: u8,
    },
}

impl fmt::Display for StolenBitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooMany(n) => {
                write!(f, "{n} stolen bits, but a VM can have at most {}", limits::STOLEN_BITS)
            }
            Self::Twice(bit) => write!(f, "stolen bit {bit} is given twice"),
            Self::InsideLeafTable { bit, lowest } => write!(
                f,
                "stolen bit {bit} lies inside what one leaf table maps, so aliases would share it; use {lowest} or above"
            ),
            Self::AboveRoot { bit, highest } if highest < StolenMask::HIGHEST_BIT => write!(
                f,
                "stolen bit {bit} lies above what four table levels translate; use {highest} or below, or five levels"
            ),
            Self::AboveRoot { bit, highest } => {
                write!(f, "stolen bit {bit} lies above what five table levels translate; use {highest} or below")
            }
            Self::InsideFrames { bit } => write!(
                f,
                "stolen bit {bit} is an ordinary address bit of the guest's frames; use a higher bit or a lower base"
            ),
        }
    }
}

impl std::error::Error for StolenBitError {}

/// The bits of a GPA that name an attribute instead of a place: a value of each VM, never a global.
///
/// ```
/// use gpa_model::{Gpa, StolenMask};
/// let mask = StolenMask::new(&[40]).unwrap();
/// let (gfn, alias) = mask.split(Gpa::new((1 << 40) | 0x1e3000));
/// assert_eq!(gfn.raw(), 0x1e3);
/// assert_eq!(mask.join(gfn, alias), Gpa::new((1 << 40) | 0x1e3000));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StolenMask {
    bits: [u8; limits::STOLEN_BITS],
    len: u8,
    gfn_mask: u64,
}

impl StolenMask {
    /// No stolen bits: the feature is off.
    pub const NONE: StolenMask = StolenMask { bits: [0; limits::STOLEN_BITS], len: 0, gfn_mask: 0 };

    /// Lowest legal bit with 4 KiB leaves. A leaf table maps gfn bits below 9; a stolen bit among them would let two
    /// aliases share the table, and the gfn computed from an entry's index would carry the bit while rmap's key does not.
    pub const LOWEST_BIT: u8 = 21;
    /// Highest legal bit with five table levels, which translate 57 bits (SDM vol. 3C, 29.3.2). A VM with four has a lower one:
    /// [`Levels::highest_bit`](crate::program::Levels::highest_bit).
    pub const HIGHEST_BIT: u8 = 56;

    /// Lowest legal bit where leaves can be as large as `largest`: above all that a table of such leaves translates. A bit
    /// inside the leaf itself would even name two places in one page.
    pub const fn lowest_bit(largest: Level) -> u8 {
        Self::LOWEST_BIT + (TABLE_SHIFT * largest as u32) as u8
    }

    /// Check that tables of leaves as large as `largest` hold no stolen bit.
    ///
    /// # Errors
    /// [`StolenBitError::InsideLeafTable`] for the lowest bit if one does.
    pub fn check_leaves(&self, largest: Level) -> Result<(), StolenBitError> {
        let lowest = Self::lowest_bit(largest);
        match self.bits().first() {
            Some(&bit) if bit < lowest => Err(StolenBitError::InsideLeafTable { bit, lowest }),
            _ => Ok(()),
        }
    }

    /// The mask of GPA bit positions `bits`, in any order.
    ///
    /// # Errors
    /// A [`StolenBitError`] if there are too many bits, a bit is doubled, or a position is illegal in any VM.
    pub fn new(bits: &[u8]) -> Result<Self, StolenBitError> {
        if bits.len() > limits::STOLEN_BITS {
            return Err(StolenBitError::TooMany(bits.len()));
        }
        let mut mask = Self::NONE;
        for &bit in bits {
            if bit < Self::LOWEST_BIT {
                return Err(StolenBitError::InsideLeafTable { bit, lowest: Self::LOWEST_BIT });
            }
            if bit > Self::HIGHEST_BIT {
                return Err(StolenBitError::AboveRoot { bit, highest: Self::HIGHEST_BIT });
            }
            let in_gfn = 1u64 << (u32::from(bit) - PAGE_SHIFT);
            if mask.gfn_mask & in_gfn != 0 {
                return Err(StolenBitError::Twice(bit));
            }
            mask.gfn_mask |= in_gfn;
            mask.bits[usize::from(mask.len)] = bit;
            mask.len += 1;
        }
        mask.bits[..usize::from(mask.len)].sort_unstable();
        Ok(mask)
    }

    /// The stolen GPA bit positions, ascending.
    #[inline]
    pub fn bits(&self) -> &[u8] {
        &self.bits[..usize::from(self.len)]
    }

    /// The mask in gfn position, as `kvm_gfn_stolen_mask()` returns it.
    #[inline]
    pub const fn gfn_mask(self) -> u64 {
        self.gfn_mask
    }

    /// The mask in gpa position, as `kvm_gpa_stolen_mask()` returns it.
    #[inline]
    pub const fn gpa_mask(self) -> u64 {
        self.gfn_mask << PAGE_SHIFT
    }

    /// Frame and alias of a GPA: the only way from a [`Gpa`] to a [`Gfn`] (`vcpu_gpa_to_gfn_unalias()`).
    #[inline]
    pub const fn split(self, gpa: Gpa) -> (Gfn, Alias) {
        let page = gpa.page();
        (Gfn(page & !self.gfn_mask), Alias(page & self.gfn_mask))
    }

    /// The GPA that names `gfn` with `alias`.
    #[inline]
    pub const fn join(self, gfn: Gfn, alias: Alias) -> Gpa {
        Gpa::from_page(gfn.0 | (alias.0 & self.gfn_mask))
    }

    /// The base name of the frame of `gpa`.
    #[inline]
    pub const fn base(self, gpa: Gpa) -> Gpa {
        self.join(self.split(gpa).0, Alias::NONE)
    }

    /// How many aliases each frame has, the base name included.
    #[inline]
    pub const fn alias_count(self) -> usize {
        1 << self.len
    }

    /// Every alias, [`Alias::NONE`] first.
    #[inline]
    pub fn aliases(self) -> impl Iterator<Item = Alias> {
        (0..self.alias_count()).map(move |index| self.alias(index))
    }

    /// The alias with number `index`: bit *i* of the number stands for the *i*-th stolen bit.
    #[inline]
    pub fn alias(self, index: usize) -> Alias {
        let mut raw = 0;
        for (i, &bit) in self.bits().iter().enumerate() {
            if index >> i & 1 != 0 {
                raw |= 1u64 << (u32::from(bit) - PAGE_SHIFT);
            }
        }
        Alias(raw)
    }

    /// The number of `alias`, the inverse of [`StolenMask::alias`].
    #[inline]
    pub fn alias_index(self, alias: Alias) -> usize {
        let mut index = 0;
        for (i, &bit) in self.bits().iter().enumerate() {
            index |= ((alias.0 >> (u32::from(bit) - PAGE_SHIFT) & 1) as usize) << i;
        }
        index
    }

    /// The lowest stolen bit that frames up to `top` need as an ordinary address bit, if there is one.
    pub fn bit_inside_frames(self, top: Gfn) -> Option<u8> {
        self.bits().iter().copied().find(|&bit| top.0 >> (u32::from(bit) - PAGE_SHIFT) != 0)
    }

    /// The bits of a GPA that must be clear where `maxphyaddr` bits are physical-address bits: all above those but the
    /// stolen ones, which hardware walks by wherever they are (`reserved_gpa_bits`, and the seed's "bits 51:MAXPHYADDR").
    #[inline]
    pub const fn reserved_gpa_bits(self, maxphyaddr: u8) -> u64 {
        (u64::MAX << maxphyaddr) & !self.gpa_mask()
    }

    /// Whether frame number `raw` carries a stolen bit, which no gfn may.
    #[inline]
    pub const fn taints(self, raw: u64) -> bool {
        raw & self.gfn_mask != 0
    }
}
