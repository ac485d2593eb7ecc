//! Addresses: a [`Gpa`] as hardware knows it and a [`Gfn`] as memslots know it, which only a [`StolenMask`] can relate.
//!
//! None of these types has operators. All page-shift and mask arithmetic of the workspace is in this file; a target that
//! encodes hardware page tables has one further file for its own bit layout.

use crate::limits;
use std::fmt;

/// Bytes of a page, as a shift.
pub const PAGE_SHIFT: u32 = 12;
/// Entries of a table page, as a shift.
const TABLE_SHIFT: u32 = 9;

/// A guest physical address as hardware reports it: stolen bits and all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gpa(u64);

/// A guest frame number as memslots, rmap and the dirty log know it: no stolen bits, ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gfn(u64);

/// Which stolen bits an address carries, in gfn position.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Alias(u64);

/// The number of a page of the host process's address space that backs the guest, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPage(u64);

/// The number of a physical page, which is the identity of its contents: a page that is unmapped and faulted in again has
/// another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pfn(u32);

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

impl Gpa {
    /// The page-aligned or byte address `raw`.
    #[inline]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The address in bytes, as hardware would report it.
    #[inline]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The page number **with** its stolen bits: an index for hardware tables and TLBs, never for a memslot.
    #[inline]
    pub const fn page(self) -> u64 {
        self.0 >> PAGE_SHIFT
    }

    /// The address of page number `page`, stolen bits included.
    #[inline]
    pub const fn from_page(page: u64) -> Self {
        Self(page << PAGE_SHIFT)
    }

    /// The address `pages` pages further on.
    #[inline]
    pub const fn add_pages(self, pages: u64) -> Self {
        Self(self.0 + (pages << PAGE_SHIFT))
    }

    /// The first address of the naturally aligned block of `pages` pages (a power of two) that holds `self`.
    #[inline]
    pub const fn align_down(self, pages: u64) -> Self {
        Self::from_page(self.page() & !(pages - 1))
    }

    /// What a field that ends below bit `bits` holds of the address.
    #[inline]
    pub const fn below(self, bits: u8) -> Self {
        Self(self.0 & ((1 << bits) - 1))
    }
}

impl Gfn {
    /// Frame number `raw`, which must not carry stolen bits of the VM it is used in.
    #[inline]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The frame number.
    #[inline]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The frame `pages` further on.
    #[inline]
    pub const fn add(self, pages: u64) -> Self {
        Self(self.0 + pages)
    }

    /// How many frames `self` lies above `base`, or `None` if it lies below.
    #[inline]
    pub const fn offset_from(self, base: Gfn) -> Option<u64> {
        self.0.checked_sub(base.0)
    }

    /// The first frame of the naturally aligned block of `pages` frames (a power of two) that holds `self`.
    #[inline]
    pub const fn align_down(self, pages: u64) -> Self {
        Self(self.0 & !(pages - 1))
    }
}

impl Alias {
    /// No stolen bit set: the base name of a frame.
    pub const NONE: Alias = Alias(0);

    /// Whether this is the base name.
    #[inline]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The stolen bits, in gfn position.
    #[inline]
    pub const fn raw(self) -> u64 {
        self.0
    }
}

impl HostPage {
    /// Host page number `page`.
    #[inline]
    pub const fn new(page: u64) -> Self {
        Self(page)
    }

    /// The host page number.
    #[inline]
    pub const fn page(self) -> u64 {
        self.0
    }

    /// The host page `pages` further on.
    #[inline]
    pub const fn add(self, pages: u64) -> Self {
        Self(self.0 + pages)
    }

    /// The first page of the naturally aligned block of `pages` pages (a power of two) that holds `self`.
    #[inline]
    pub const fn align_down(self, pages: u64) -> Self {
        Self(self.0 & !(pages - 1))
    }
}

impl Pfn {
    /// Physical page `raw`.
    #[inline]
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// The page number.
    #[inline]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// The page `pages` further on.
    #[inline]
    pub const fn add(self, pages: u64) -> Self {
        Self(self.0.wrapping_add(pages as u32))
    }

    /// The page `pages` before.
    #[inline]
    pub const fn before(self, pages: u64) -> Self {
        Self(self.0.wrapping_sub(pages as u32))
    }

    /// The identity at the place where a page-table entry holds its page, all bits below it clear.
    #[inline]
    pub(crate) const fn in_entry(self) -> u64 {
        (self.0 as u64) << PAGE_SHIFT
    }

    /// The identity that `entry` holds, whatever its bits below say: the inverse of [`Pfn::in_entry`].
    #[inline]
    pub(crate) const fn of_entry(entry: u64) -> Self {
        Self((entry >> PAGE_SHIFT) as u32)
    }
}

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
    /// [`Levels::highest_bit`](crate::vm::Levels::highest_bit).
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

/// What an address looks like where it is debugged, and where it is shown to people.
macro_rules! shown {
    ($($address:ident: $trait:ident as $format:literal;)*) => {
        $(impl fmt::$trait for $address {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        })*
    };
}

shown! {
    Gpa: Debug as "gpa {:#x}";
    Gfn: Debug as "gfn {:#x}";
    Gfn: Display as "{:#x}";
    Alias: Debug as "alias {:#x}";
    HostPage: Debug as "hva {:#x}";
    Pfn: Debug as "pfn {}";
    Pfn: Display as "pfn {}";
}
