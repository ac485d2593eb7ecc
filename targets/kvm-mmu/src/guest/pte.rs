//! The bit layout of the guest's page-table entries, in each format (`paging_tmpl.h`).

use gpa_model::limits::MAXPHYADDR_MAX;
use gpa_model::{Gpa, GuestPaging, Rights};

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
const NX: u64 = 1 << 63;
/// The low three bits of an EPT entry are its rights. An entry without rights is not present.
const EPT_RIGHTS: u64 = 7;
/// The first bit above the address, in 64-bit and in 32-bit entries.
const ADDRESS_END: u8 = MAXPHYADDR_MAX;
const ADDRESS_32_END: u8 = 32;
/// Bits 32 to 39 of the address in a 32-bit entry for 4 MiB (PSE-36).
const PSE36: u64 = (1 << 21) - (1 << 13);
const PSE36_SHIFT: u32 = 19;

/// An entry read from guest memory, and its format.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GuestPte {
    raw: u64,
    paging: GuestPaging,
    level: u8,
}

impl GuestPte {
    /// `raw`, read from a table of `level`.
    pub(crate) const fn new(raw: u64, paging: GuestPaging, level: u8) -> Self {
        Self { raw, paging, level }
    }

    const fn is_ept(self) -> bool {
        matches!(self.paging, GuestPaging::NestedEpt)
    }

    const fn is_32_bit(self) -> bool {
        matches!(self.paging, GuestPaging::Legacy)
    }

    pub(crate) const fn is_present(self) -> bool {
        self.raw & if self.is_ept() { EPT_RIGHTS } else { PRESENT } != 0
    }

    /// Whether the walk ends here.
    pub(crate) const fn is_leaf(self) -> bool {
        self.level == 1 || self.raw & LARGE != 0
    }

    /// The address, with its stolen bits: of a page if the walk ends here, otherwise of the next table.
    pub(crate) const fn address(self) -> Gpa {
        let address = Self::of_root(self.paging, Gpa::new(self.raw));
        if self.is_32_bit() && self.is_large() {
            return Gpa::new(
                address.align_down(self.paging.pages(self.level)).raw() | (self.raw & PSE36) << PSE36_SHIFT,
            );
        }
        address
    }

    /// The part of `root` that a register, or an entry of that width, can hold.
    pub(crate) const fn of_root(paging: GuestPaging, root: Gpa) -> Gpa {
        let end = if matches!(paging, GuestPaging::Legacy) { ADDRESS_32_END } else { ADDRESS_END };
        root.below(end).align_down(1)
    }

    /// What the entry allows a program in user mode.
    pub(crate) const fn rights(self) -> Rights {
        if self.is_ept() {
            return Rights::from_bits((self.raw & EPT_RIGHTS) as u8);
        }
        if self.raw & USER == 0 {
            return Rights::NONE;
        }
        let rights = if self.raw & WRITABLE == 0 { Rights::RX } else { Rights::RWX };
        if self.raw & NX != 0 && !self.is_32_bit() { rights.minus(Rights::X) } else { rights }
    }

    /// Whether a reserved bit is set: an address bit of `reserved`, or the page-size bit at a level without large pages
    /// (`reset_rsvds_bits_mask()`).
    pub(crate) fn is_reserved(self, reserved: u64) -> bool {
        self.address().raw() & reserved != 0 || self.is_large() && !self.paging.has_large(self.level)
    }

    /// Whether `address`, which comes from the entry, has a bit set below the size of the large page. The lowest such
    /// bit is PAT and does not count.
    pub(crate) fn is_unaligned(self, address: Gpa) -> bool {
        self.is_large() && {
            let within = Gpa::from_page(self.paging.pages(self.level)).raw() - (1 << 13);
            address.raw() & within != 0
        }
    }

    const fn is_large(self) -> bool {
        self.level > 1 && self.raw & LARGE != 0
    }
}
