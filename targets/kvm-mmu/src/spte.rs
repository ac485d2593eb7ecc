//! The bit layout of a second-stage entry (EPT format, SDM vol. 3C, 29.3.2), and how a GPA indexes the tables.

use gpa_model::addr::PAGE_SHIFT;
use gpa_model::{Gpa, Pfn, Rights, Spte};

/// Entries of one table page.
pub(crate) const ENTRIES: usize = 512;
/// The level of the root table; leaves are at level 1.
pub(crate) const ROOT_LEVEL: u8 = 4;

const LEVEL_BITS: u32 = 9;
const RWX: u64 = 7;
const ACCESSED: u64 = 1 << 8;
const DIRTY: u64 = 1 << 9;
/// Software bit: the MMU may make the entry writable again without taking the lock, because only dirty logging took the
/// right away.
const MMU_WRITABLE: u64 = 1 << 58;
/// Software bit of an entry that is not present: accesses go to user space.
const MMIO: u64 = 1 << 62;
/// Where an MMIO entry keeps the memslot generation it was made in.
const MMIO_GENERATION_SHIFT: u32 = 3;
const ADDRESS: u64 = ((1 << 48) - 1) & !((1 << PAGE_SHIFT) - 1);

/// One entry of a table page. Zero is not present.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub(crate) struct Entry(u64);

impl Entry {
    /// Not present.
    pub(crate) const ABSENT: Entry = Entry(0);

    /// The entry that a table page holds as `raw`.
    pub(crate) const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// What a table page holds.
    pub(crate) const fn raw(self) -> u64 {
        self.0
    }

    /// A leaf that maps `pfn`. A fault sets the accessed bit at once, prefetch leaves it to the walker.
    pub(crate) fn leaf(pfn: Pfn, rights: Rights, accessed: bool) -> Self {
        let writable = if rights.contains(Rights::W) { MMU_WRITABLE | DIRTY } else { 0 };
        let accessed = if accessed { ACCESSED } else { 0 };
        Self(u64::from(pfn.raw()) << PAGE_SHIFT | u64::from(rights.bits()) | writable | accessed)
    }

    /// An entry that remembers that there is no memslot here, for as long as the memslots stay what they are.
    pub(crate) const fn mmio(generation: u64) -> Self {
        Self(MMIO | generation << MMIO_GENERATION_SHIFT)
    }

    /// The generation of an MMIO entry.
    pub(crate) const fn mmio_generation(self) -> Option<u64> {
        if self.0 & MMIO == 0 { None } else { Some((self.0 & !MMIO) >> MMIO_GENERATION_SHIFT) }
    }

    /// A pointer to table number `table`.
    pub(crate) fn link(table: u32) -> Self {
        Self(u64::from(table) << PAGE_SHIFT | RWX)
    }

    /// Whether anything is here.
    pub(crate) const fn is_present(self) -> bool {
        self.0 & RWX != 0
    }

    /// The table a non-leaf entry points to.
    pub(crate) const fn table(self) -> u32 {
        ((self.0 & ADDRESS) >> PAGE_SHIFT) as u32
    }

    /// The page a leaf maps.
    pub(crate) const fn pfn(self) -> Pfn {
        Pfn::new(self.table())
    }

    /// What a leaf lets the guest do.
    pub(crate) const fn rights(self) -> Rights {
        Rights::from_bits((self.0 & RWX) as u8)
    }

    /// Whether it is present and writable.
    pub(crate) const fn is_writable(self) -> bool {
        self.rights().contains(Rights::W)
    }

    /// Whether it may be made writable without the lock.
    pub(crate) const fn is_mmu_writable(self) -> bool {
        self.0 & MMU_WRITABLE != 0
    }

    /// The entry with the right to write.
    pub(crate) const fn writable(self) -> Self {
        Self(self.0 | Rights::W.bits() as u64 | DIRTY)
    }

    /// Whether it was written through since its dirty bit was cleared.
    pub(crate) const fn is_dirty(self) -> bool {
        self.0 & DIRTY != 0
    }

    /// The entry as the page walker leaves it after a write.
    pub(crate) const fn dirtied(self) -> Self {
        Self(self.0 | DIRTY)
    }

    /// The entry with its dirty bit clear: the next write through it sets it again, and is logged.
    pub(crate) const fn cleaned(self) -> Self {
        Self(self.0 & !DIRTY)
    }

    /// The entry without the right to write. If `lasting`, it cannot be given back without the lock either.
    pub(crate) const fn write_protected(self, lasting: bool) -> Self {
        let entry = self.0 & !(Rights::W.bits() as u64);
        Self(if lasting { entry & !MMU_WRITABLE } else { entry })
    }

    /// Whether the page was accessed through this entry.
    pub(crate) const fn is_accessed(self) -> bool {
        self.0 & ACCESSED != 0
    }

    /// The entry as the page walker leaves it.
    pub(crate) const fn accessed(self) -> Self {
        Self(self.0 | ACCESSED)
    }

    /// The entry as ageing leaves it.
    pub(crate) const fn aged(self) -> Self {
        Self(self.0 & !ACCESSED)
    }

    /// What the model calls a present leaf: the page, and what the guest may do with it unnoticed. A write that sets the
    /// dirty bit is noticed.
    pub(crate) const fn spte(self) -> Option<Spte> {
        let unnoticed = if self.is_dirty() { RWX } else { RWX & !(Rights::W.bits() as u64) };
        if self.is_present() { Spte::from_raw(self.0 & (ADDRESS | unnoticed)) } else { None }
    }
}

/// The index of `gpa`, stolen bits and all, in a table of `level`.
pub(crate) const fn index(gpa: Gpa, level: u8) -> usize {
    (gpa.page() >> (LEVEL_BITS * (level as u32 - 1))) as usize & (ENTRIES - 1)
}

/// How many pages a whole table of `level` translates.
pub(crate) const fn pages_of_table(level: u8) -> u64 {
    1 << (LEVEL_BITS * level as u32)
}

const _: () = assert!(Rights::RWX.bits() as u64 == RWX, "the model packs rights as EPT does");
