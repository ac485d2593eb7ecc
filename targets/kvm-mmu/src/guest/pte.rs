//! The bit layout of the guest's own page-table entries, one template for each format (`paging_tmpl.h`).

use gpa_model::limits::MAXPHYADDR_MAX;
use gpa_model::{Gpa, GuestPaging, Rights};

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
const NX: u64 = 1 << 63;
/// In EPT the low three bits are the rights, and an entry without any is not present.
const EPT_RIGHTS: u64 = 7;
/// Where the address of a 64-bit entry ends, and that of a 32-bit one.
const ADDRESS_END: u8 = MAXPHYADDR_MAX;
const ADDRESS_32_END: u8 = 32;
/// Where a 32-bit entry for 4 MiB keeps bits 32 to 39 of the address (PSE-36).
const PSE36: u64 = (1 << 21) - (1 << 13);
const PSE36_SHIFT: u32 = 19;

/// An entry as it was read from guest memory, and the format it is in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GuestPte {
    raw: u64,
    paging: GuestPaging,
    level: u8,
}

impl GuestPte {
    /// `raw`, from a table of `level`.
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

    /// The address, stolen bits and all: of a page if the walk ends here, otherwise of the next table.
    pub(crate) const fn address(self) -> Gpa {
        let address = Self::of_root(self.paging, Gpa::new(self.raw));
        if self.is_32_bit() && self.is_large() {
            return Gpa::new(
                address.align_down(self.paging.pages(self.level)).raw() | (self.raw & PSE36) << PSE36_SHIFT,
            );
        }
        address
    }

    /// What the register that `root` is in holds of it, and entries of that width of an address.
    pub(crate) const fn of_root(paging: GuestPaging, root: Gpa) -> Gpa {
        let end = if matches!(paging, GuestPaging::Legacy) { ADDRESS_32_END } else { ADDRESS_END };
        root.below(end).align_down(1)
    }

    /// What the entry lets a program in user mode do.
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

    /// Whether a bit is set that must be clear: of the address one in `reserved`, or the one that makes a page large at a level
    /// that has none (`reset_rsvds_bits_mask()`).
    pub(crate) fn is_reserved(self, reserved: u64) -> bool {
        self.address().raw() & reserved != 0 || self.is_large() && !self.paging.has_large(self.level)
    }

    /// Whether `address`, made of the entry's, has a bit set that lies within the large page. The lowest is PAT.
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
