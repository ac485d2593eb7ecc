//! An entry of a guest page table, as the guest writes it.

use crate::addr::Gpa;
use std::fmt;

/// Flags of a guest's page-table entry.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct GpteFlags(u8);

impl GpteFlags {
    /// The entry means something; in EPT, it lets its guest read.
    pub const PRESENT: GpteFlags = GpteFlags(1);
    /// Writes are allowed.
    pub const WRITABLE: GpteFlags = GpteFlags(2);
    /// User mode may use it. Nothing in EPT.
    pub const USER: GpteFlags = GpteFlags(4);
    /// Nothing may be executed. Nothing in a 32-bit entry.
    pub const NX: GpteFlags = GpteFlags(8);
    /// A page of 2 MiB, 4 MiB or 1 GiB, by level; in a leaf table nothing but a bit (PAT).
    pub const LARGE: GpteFlags = GpteFlags(16);
    /// Bit 51, the highest of an address, is set too: a reserved bit, unless MAXPHYADDR is 52 or the bit is stolen. In an entry
    /// that is not present, a bit like any other. Nothing in a 32-bit entry.
    pub const BIT51: GpteFlags = GpteFlags(32);

    /// Each flag with its word in the text format.
    pub const NAMES: [(GpteFlags, &'static str); 6] = [
        (Self::PRESENT, "present"),
        (Self::WRITABLE, "writable"),
        (Self::USER, "user"),
        (Self::NX, "nx"),
        (Self::LARGE, "large"),
        (Self::BIT51, "bit51"),
    ];

    /// No flag.
    pub const NONE: GpteFlags = GpteFlags(0);
    /// What an entry for plain memory, or for a lower table, has.
    pub const PLAIN: GpteFlags = GpteFlags(7);

    /// Flags of both.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Flags of `self` that are not in `other`.
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` is in `self`.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl fmt::Debug for GpteFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(Self::NAMES.iter().filter(|(flag, _)| self.contains(*flag)).map(|(_, name)| name))
            .finish()
    }
}

/// One entry of a guest's page table: an address and flags, in one word. Zero is an entry of a page of zeros.
///
/// A page holds the entry of the VM's paging mode, [`Gpte::raw`], with the accessed and dirty bits set.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Gpte(u64);

impl Gpte {
    /// An entry for the page at `gpa`, with any alias.
    pub const fn new(gpa: Gpa, flags: GpteFlags) -> Self {
        Self(gpa.align_down(1).raw() | flags.0 as u64)
    }

    /// The address, as the guest wrote it. An entry for a large page holds the start of the block around it.
    pub const fn gpa(self) -> Gpa {
        Gpa::new(self.0).align_down(1)
    }

    /// The same with [`GpteFlags::BIT51`].
    pub(super) const fn full(self) -> Gpa {
        const BIT51: u64 = 1 << 51;
        Gpa::new(self.gpa().raw() | if self.has(GpteFlags::BIT51) { BIT51 } else { 0 })
    }

    /// The flags.
    pub const fn flags(self) -> GpteFlags {
        GpteFlags(self.0 as u8)
    }

    /// Whether all of `flags` are set.
    pub const fn has(self, flags: GpteFlags) -> bool {
        self.flags().contains(flags)
    }
}

impl fmt::Debug for Gpte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.gpa(), self.flags())
    }
}
