//! What the bits of an entry mean: of a page table and a nested one (APM, volume 2, 5.3 and 15.25), and of EPT (SDM, volume 3C, 29.3).

pub(super) const PRESENT: u64 = 1;
pub(super) const WRITABLE: u64 = 1 << 1;
pub(super) const USER: u64 = 1 << 2;
pub(super) const ACCESSED: u64 = 1 << 5;
pub(super) const DIRTY: u64 = 1 << 6;
pub(super) const LARGE: u64 = 1 << 7;
pub(super) const NO_EXECUTE: u64 = 1 << 63;
/// The bits of an entry that hold an address, and those above it that are reserved unless a physical address has so many.
pub(super) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Of EPT: read, write, execute.
const EPT_READ: u64 = 1;
const EPT_WRITE: u64 = 1 << 1;
const EPT_RIGHTS: u64 = 7;
const EPT_EXECUTE: u64 = 1 << 2;
const EPT_ACCESSED: u64 = 1 << 8;
const EPT_DIRTY: u64 = 1 << 9;

/// Which kind of entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Of a page table, or a nested one of AMD's.
    Page,
    /// Of EPT; whether the processor keeps accessed and dirty bits.
    Ept { accessed_dirty: bool },
}

/// What an entry says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Says {
    pub(crate) present: bool,
    /// It has bits that must not be set as they are.
    pub(crate) reserved: bool,
    pub(crate) writable: bool,
    pub(crate) executable: bool,
    /// A user may use it. In EPT, of which all are users: it can be read.
    pub(crate) user: bool,
    pub(crate) large: bool,
}

impl Format {
    /// What `raw`, an entry of `level`, says where a physical address has so many bits.
    pub(crate) const fn read(self, raw: u64, level: u8, physical_bits: u8) -> Says {
        let beyond = raw & reserved(physical_bits) != 0;
        let large = level > 1 && raw & LARGE != 0;
        match self {
            Self::Page => Says {
                present: raw & PRESENT != 0,
                reserved: beyond,
                writable: raw & WRITABLE != 0,
                executable: raw & NO_EXECUTE == 0,
                user: raw & USER != 0,
                large,
            },
            Self::Ept { .. } => Says {
                present: raw & EPT_RIGHTS != 0,
                // A write without a read is a misconfiguration.
                reserved: beyond || raw & (EPT_READ | EPT_WRITE) == EPT_WRITE,
                writable: raw & EPT_WRITE != 0,
                executable: raw & EPT_EXECUTE != 0,
                user: raw & EPT_READ != 0,
                large,
            },
        }
    }

    /// The bit that says that an entry was used; 0 if there is none.
    pub(crate) const fn accessed(self) -> u64 {
        match self {
            Self::Page => ACCESSED,
            Self::Ept { accessed_dirty: true } => EPT_ACCESSED,
            Self::Ept { accessed_dirty: false } => 0,
        }
    }

    /// The bit that says that a page was written; 0 if there is none.
    pub(crate) const fn dirty(self) -> u64 {
        match self {
            Self::Page => DIRTY,
            Self::Ept { accessed_dirty: true } => EPT_DIRTY,
            Self::Ept { accessed_dirty: false } => 0,
        }
    }
}

/// Bits of an entry above a physical address of so many bits, below those that are free to use.
pub(super) const fn reserved(physical_bits: u8) -> u64 {
    ((1 << 52) - 1) & !((1 << physical_bits) - 1)
}
