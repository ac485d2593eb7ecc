//! NPT entries, which are those of long mode (APM vol. 2, 5.3 and 15.25).

use super::Format;
use gpa_model::Rights;

const READ: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
/// Guest accesses are user accesses to the nested tables.
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const PAGE_SIZE: u64 = 1 << 7;
const HOST_WRITABLE: u64 = 1 << 9;
const MMU_WRITABLE: u64 = 1 << 10;
const PRESENT: u64 = 1 << 11;
/// An address bit that is reserved on every processor with fewer than 52 address bits.
const RESERVED: u64 = 1 << 51;
const NO_EXECUTE: u64 = 1 << 63;

/// Nested paging, with entries of long mode. The processor sets accessed and dirty bits, and does not log writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Npt {}

impl Format for Npt {
    const RIGHTS: u64 = READ | WRITE | USER | NO_EXECUTE;
    const WRITE: u64 = WRITE;
    const LINK: u64 = READ | WRITE | USER;
    const LEAF: u64 = 0;
    const PAGE_SIZE: u64 = PAGE_SIZE;
    const PRESENT: u64 = PRESENT;
    const ACCESSED: u64 = ACCESSED;
    const DIRTY: u64 = DIRTY;
    const SAVED_RIGHTS_SHIFT: Option<u32> = None;
    const PML: bool = false;
    const HOST_WRITABLE: u64 = HOST_WRITABLE;
    const MMU_WRITABLE: u64 = MMU_WRITABLE;
    /// The fault reports that a reserved bit was set.
    const MMIO: u64 = RESERVED | READ;
    const MMIO_MASK: u64 = RESERVED | READ | PRESENT;

    fn encode(rights: Rights) -> u64 {
        let grant = |right, bits| if rights.contains(right) { bits } else { 0 };
        let forbid = if rights.contains(Rights::X) || rights.is_none() { 0 } else { NO_EXECUTE };
        grant(Rights::R, READ | USER) | grant(Rights::W, WRITE) | forbid
    }

    fn decode(raw: u64) -> Rights {
        if raw & READ == 0 {
            return Rights::NONE;
        }
        let executable = if raw & NO_EXECUTE == 0 { Rights::X } else { Rights::NONE };
        let writable = if raw & WRITE == 0 { Rights::NONE } else { Rights::W };
        Rights::R.union(writable).union(executable)
    }

    /// A present page can always be read.
    fn encodes(rights: Rights) -> bool {
        rights.is_none() || rights.contains(Rights::R)
    }

    /// Bit 7 of a link above the levels with large leaves, and bit 8.
    fn reserved_in_link(level: u8) -> u64 {
        if level > 3 { PAGE_SIZE | 1 << 8 } else { 0 }
    }
}
