//! How each paging mode writes an entry of a guest page table, and what it reads there.

use super::guest_paging::{ADDRESS_BITS, LEGACY_BITS, PSE36_BITS};
use super::{Gpte, GpteFlags, GuestPaging, Rights};
use crate::addr::{Gpa, StolenMask};

impl Gpte {
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

impl GuestPaging {
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
}
