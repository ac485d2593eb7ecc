//! EPT entries (SDM vol. 3C, 29.3.2), with and without accessed and dirty bits.

use super::Format;
use gpa_model::Rights;

const RWX: u64 = 0b111;
const WRITE: u64 = 1 << 1;
const EXECUTE: u64 = 1 << 2;
/// Memory type write-back; the guest's PAT is honoured.
const WRITE_BACK: u64 = 6 << 3;
const PAGE_SIZE: u64 = 1 << 7;
const ACCESSED: u64 = 1 << 8;
const DIRTY: u64 = 1 << 9;
/// Ignored by the processor. Bit 11 is too.
const PRESENT: u64 = 1 << 11;
/// Where an entry without rights keeps those it had. Bits 62:52 are ignored unless a feature that uses them is enabled.
const SAVED_RIGHTS_SHIFT: u32 = 54;
const HOST_WRITABLE: u64 = 1 << 57;
const MMU_WRITABLE: u64 = 1 << 58;

/// EPT of a processor that sets accessed and dirty bits (IA32_VMX_EPT_VPID_CAP bit 21) and logs writes by them (PML).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ept {}

/// EPT without accessed and dirty bits: an aged entry grants nothing until a fault shows that it is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EptNoAd {}

macro_rules! ept {
    ($format:ident { $($item:item)* }) => {
        impl Format for $format {
            const RIGHTS: u64 = RWX;
            const WRITE: u64 = WRITE;
            const LINK: u64 = RWX;
            const LEAF: u64 = WRITE_BACK;
            const PAGE_SIZE: u64 = PAGE_SIZE;
            const PRESENT: u64 = PRESENT;
            const HOST_WRITABLE: u64 = HOST_WRITABLE;
            const MMU_WRITABLE: u64 = MMU_WRITABLE;
            /// Write and execute without read: a misconfiguration, which has an exit reason of its own.
            const MMIO: u64 = WRITE | EXECUTE;
            const MMIO_MASK: u64 = RWX | PRESENT;
            $($item)*

            fn encode(rights: Rights) -> u64 {
                u64::from(rights.bits())
            }

            fn decode(raw: u64) -> Rights {
                Rights::from_bits((raw & RWX) as u8)
            }

            /// A page can be execute-only.
            fn encodes(rights: Rights) -> bool {
                rights.is_none() || rights.contains(Rights::R) || !rights.contains(Rights::W)
            }

            /// Bits 6:3 of a link, and bit 7 of a link above the levels with large leaves.
            fn reserved_in_link(level: u8) -> u64 {
                0b1111 << 3 | if level > 3 { PAGE_SIZE } else { 0 }
            }
        }
    };
}

ept! { Ept {
    const ACCESSED: u64 = ACCESSED;
    const DIRTY: u64 = DIRTY;
    const SAVED_RIGHTS_SHIFT: Option<u32> = None;
    const PML: bool = true;
}}

ept! { EptNoAd {
    const ACCESSED: u64 = 0;
    const DIRTY: u64 = 0;
    const SAVED_RIGHTS_SHIFT: Option<u32> = Some(SAVED_RIGHTS_SHIFT);
    const PML: bool = false;
}}

const _: () = assert!(Rights::RWX.bits() as u64 == RWX, "the model packs rights as EPT does");
