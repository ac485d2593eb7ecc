//! Addresses: a [`Gpa`] as hardware knows it and a [`Gfn`] as memslots know it, which only a [`StolenMask`] can relate.
//!
//! None of these types has operators. All page-shift and mask arithmetic of the workspace is in this file; a target that
//! encodes hardware page tables has one further file for its own bit layout.

mod level;
mod stolen;

pub use level::{Level, Span};
pub use stolen::{StolenBitError, StolenMask};

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
