//! The guest's own page tables: the paging modes a guest can be in, and the entries that it writes.
//!
//! Tables lie in guest memory, so what they hold belongs to the host pages behind them ([`Host::gpte`](crate::Host::gpte)).
//! Where they lead is [`Model::guest_walk`](crate::Model::guest_walk)'s to say.

use crate::addr::{Gpa, StolenMask};
use crate::limits::{GPTES, GUEST_LEVELS, MAXPHYADDR_MAX};
use crate::mmu::Rights;
use std::fmt;

/// The address bits of a 64-bit entry and of a 64-bit register.
const ADDRESS_BITS: u8 = MAXPHYADDR_MAX;
/// The address bits of a 32-bit entry, and those of one for 4 MiB, which keeps eight more elsewhere (PSE-36).
const LEGACY_BITS: u8 = 32;
const PSE36_BITS: u8 = 40;

/// How the guest translates its addresses (SDM vol. 3A, 4.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum GuestPaging {
    /// Long mode, four levels.
    #[default]
    FourLevel,
    /// Long mode, five levels.
    FiveLevel,
    /// PAE, from one of the four page-directory pointers that the processor keeps in registers.
    Pae,
    /// 32-bit entries, with 4 MiB pages above 4 GiB (PSE-36).
    Legacy,
    /// The guest is a hypervisor: EPT for a guest of its own.
    NestedEpt,
    /// The same with AMD's nested page tables, whose entries are those of long mode.
    NestedNpt,
}

impl GuestPaging {
    /// All of them.
    pub const ALL: [GuestPaging; 6] =
        [Self::FourLevel, Self::FiveLevel, Self::Pae, Self::Legacy, Self::NestedEpt, Self::NestedNpt];

    /// The word for it in the text format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FourLevel => "4-level",
            Self::FiveLevel => "5-level",
            Self::Pae => "pae",
            Self::Legacy => "32-bit",
            Self::NestedEpt => "nested-ept",
            Self::NestedNpt => "nested-npt",
        }
    }

    /// How many tables a walk reads.
    pub const fn levels(self) -> u8 {
        match self {
            Self::FiveLevel => 5,
            Self::FourLevel | Self::NestedEpt | Self::NestedNpt => 4,
            Self::Pae | Self::Legacy => 2,
        }
    }

    /// Whether stolen bits are stripped from every address in the tables, and from the one they begin with. 32-bit guests
    /// and hypervisors that are guests do not know of stolen bits: what they write is taken as it stands.
    pub const fn strips_stolen_bits(self) -> bool {
        matches!(self, Self::FourLevel | Self::FiveLevel | Self::Pae)
    }

    /// Whether the guest is a hypervisor, and it is a guest of its own (L2) that goes by its tables.
    pub const fn is_nested(self) -> bool {
        matches!(self, Self::NestedEpt | Self::NestedNpt)
    }

    /// Whether an entry of a table of `level` may map a large page.
    pub const fn has_large(self, level: u8) -> bool {
        match self {
            Self::Pae | Self::Legacy => level == 2,
            _ => level == 2 || level == 3,
        }
    }

    /// How many pages an entry of a table of `level` translates.
    pub const fn pages(self, level: u8) -> u64 {
        let bits = if matches!(self, Self::Legacy) { 10 } else { 9 };
        1 << (bits * (level as u32 - 1))
    }

    /// The address that the walk begins with, as CR3 or its like holds it.
    pub const fn root(self, root: Gpa) -> Gpa {
        root.below(if matches!(self, Self::Legacy) { LEGACY_BITS } else { ADDRESS_BITS })
    }

    /// The address that `entry` holds when it is read from a table of `level`, stolen bits and all.
    pub fn address(self, entry: Gpte, level: u8) -> Gpa {
        match self {
            Self::Legacy if entry.has(GpteFlags::LARGE) && self.has_large(level) => {
                entry.full().below(PSE36_BITS).align_down(self.pages(2))
            }
            Self::Legacy => Gpa::new(entry.raw(self)).align_down(1),
            _ if entry.has(GpteFlags::LARGE) => entry.full().below(ADDRESS_BITS).align_down(self.pages(2)),
            _ => entry.full().below(ADDRESS_BITS),
        }
    }

    /// What `entry` lets a program of the guest do, user mode that it is.
    pub fn rights(self, entry: Gpte) -> Rights {
        let user = entry.has(GpteFlags::USER) || self == Self::NestedEpt;
        let no_execute = entry.has(GpteFlags::NX) && self != Self::Legacy;
        match (user, entry.has(GpteFlags::WRITABLE)) {
            (false, _) => Rights::NONE,
            (true, writable) => {
                let rights = if writable { Rights::RWX } else { Rights::RX };
                if no_execute { rights.minus(Rights::X) } else { rights }
            }
        }
    }

    /// Whether a present `entry` of a table of `level` has a bit set that must not be: one beyond `maxphyaddr`, a large page
    /// where there is none, or one that is not aligned. Where stolen bits are stripped they are never reserved.
    pub fn is_reserved(self, stolen: StolenMask, maxphyaddr: u8, entry: Gpte, level: u8) -> bool {
        let address = self.taken(stolen, self.address(entry, level));
        let large = entry.has(GpteFlags::LARGE) && level > 1;
        let misplaced = large && (!self.has_large(level) || address != address.align_down(self.pages(level)));
        misplaced || address != address.below(maxphyaddr)
    }

    /// What the walk makes of an address from the tables: the base name where the mode strips stolen bits, otherwise the
    /// address as it stands (`gpte_to_gfn()` in the seed).
    pub fn taken(self, stolen: StolenMask, address: Gpa) -> Gpa {
        if self.strips_stolen_bits() { stolen.base(address) } else { address }
    }
}

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
    const fn full(self) -> Gpa {
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

    /// The entry as memory holds it: 64 bits, or 32 in the lower half (SDM vol. 3A, 4.3 to 4.5; vol. 3C, 29.3.2).
    pub fn raw(self, paging: GuestPaging) -> u64 {
        const ACCESSED_DIRTY: u64 = 1 << 5 | 1 << 6;
        const LARGE: u64 = 1 << 7;
        const NX: u64 = 1 << 63;
        const EPT_EXECUTE: u64 = 1 << 2;
        const PSE36_SHIFT: u32 = LEGACY_BITS as u32 - 13;
        if self == Self::default() {
            return 0;
        }
        let bit = |flag, bit| if self.has(flag) { bit } else { 0 };
        let large = bit(GpteFlags::LARGE, LARGE);
        let gpa = if large == 0 { self.full() } else { self.full().align_down(paging.pages(2)) };
        let writable = bit(GpteFlags::WRITABLE, 1 << 1);
        let legacy = bit(GpteFlags::PRESENT, 1) | writable | bit(GpteFlags::USER, 1 << 2) | ACCESSED_DIRTY | large;
        let wide = gpa.below(ADDRESS_BITS).raw();
        match paging {
            GuestPaging::Legacy => {
                let low = gpa.below(LEGACY_BITS).raw();
                let high = if large == 0 { 0 } else { (gpa.below(PSE36_BITS).raw() - low) >> PSE36_SHIFT };
                low | high | legacy
            }
            GuestPaging::NestedEpt => {
                let execute = if self.has(GpteFlags::NX) { 0 } else { EPT_EXECUTE };
                wide | large | bit(GpteFlags::PRESENT, 1 | writable | execute)
            }
            _ => wide | legacy | bit(GpteFlags::NX, NX),
        }
    }
}

impl fmt::Debug for Gpte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.gpa(), self.flags())
    }
}

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
