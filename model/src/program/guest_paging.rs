//! The guest's own page tables: the paging modes a guest can be in, and the entries that it writes.
//!
//! Tables lie in guest memory, so what they hold belongs to the host pages behind them ([`Host::gpte`](crate::Host::gpte)).
//! Where they lead is [`Model::guest_walk`](crate::Model::guest_walk)'s to say.

use crate::addr::{Gpa, StolenMask};
use crate::limits::MAXPHYADDR_MAX;
use crate::variants::all;
use strum::{EnumCount, IntoStaticStr, VariantArray};

/// The address bits of a 64-bit entry and of a 64-bit register.
pub(super) const ADDRESS_BITS: u8 = MAXPHYADDR_MAX;
/// The address bits of a 32-bit entry, and those of one for 4 MiB, which keeps eight more elsewhere (PSE-36).
pub(super) const LEGACY_BITS: u8 = 32;
pub(super) const PSE36_BITS: u8 = 40;

/// How the guest translates its addresses (SDM vol. 3A, 4.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, EnumCount, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum GuestPaging {
    /// Long mode, four levels.
    #[default]
    #[strum(serialize = "4-level")]
    FourLevel,
    /// Long mode, five levels.
    #[strum(serialize = "5-level")]
    FiveLevel,
    /// PAE, from one of the four page-directory pointers that the processor keeps in registers.
    Pae,
    /// 32-bit entries, with 4 MiB pages above 4 GiB (PSE-36).
    #[strum(serialize = "32-bit")]
    Legacy,
    /// The guest is a hypervisor: EPT for a guest of its own.
    NestedEpt,
    /// The same with AMD's nested page tables, whose entries are those of long mode.
    NestedNpt,
}

impl GuestPaging {
    /// All of them.
    pub const ALL: [GuestPaging; GuestPaging::COUNT] = all(GuestPaging::VARIANTS);

    /// The word for it in the text format.
    pub fn name(self) -> &'static str {
        self.into()
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

    /// What the walk makes of an address from the tables: the base name where the mode strips stolen bits, otherwise the
    /// address as it stands (`gpte_to_gfn()` in the seed).
    pub fn taken(self, stolen: StolenMask, address: Gpa) -> Gpa {
        if self.strips_stolen_bits() { stolen.base(address) } else { address }
    }
}
