//! Second-stage entries, in any layout, and the indices of a GPA in the tables. [`Format`] describes a layout; each
//! layout has a file.

mod ept;
mod npt;

pub use ept::{Ept, EptNoAd};
pub use npt::Npt;

use gpa_model::addr::PAGE_SHIFT;
use gpa_model::{Gfn, Gpa, Level, Pfn, Rights, Spte};
use std::fmt;
use std::marker::PhantomData;

/// The number of entries of a table page.
pub(crate) const ENTRIES: usize = 512;

const LEVEL_BITS: u32 = 9;
/// The address bits of an entry, in any format.
const ADDRESS: u64 = ((1 << 52) - 1) & !((1 << PAGE_SHIFT) - 1);
/// The low bits of the memslot generation in an MMIO entry: shift and width.
const MMIO_GENERATION_LOW: (u32, u32) = (3, 8);
/// The high bits: shift and width.
const MMIO_GENERATION_HIGH: (u32, u32) = (52, 11);

/// The bit layout of second-stage entries. It is a type without values, so the choice costs nothing at run time.
pub trait Format: Copy + Eq + fmt::Debug + Send + Sync + 'static {
    /// All bits that grant rights.
    const RIGHTS: u64;
    /// The bit without which nothing can be written. In every layout it grants the right when it is set.
    const WRITE: u64;
    /// The rights of a link. They restrict nothing; the leaves decide.
    const LINK: u64;
    /// The bits that every leaf has, such as a memory type.
    const LEAF: u64;
    /// The bit of a leaf above level 1.
    const PAGE_SIZE: u64;
    /// A software bit: the entry is present, even if it grants no rights.
    const PRESENT: u64;
    /// The bit that the page walker sets on use, or 0 if it sets none.
    const ACCESSED: u64;
    /// The bit that the page walker sets on a write, or 0 if it sets none.
    const DIRTY: u64;
    /// Where an aged entry keeps its rights in a layout without an accessed bit. Such an entry grants nothing until a
    /// fault shows that it is in use.
    const SAVED_RIGHTS_SHIFT: Option<u32>;
    /// Whether the processor logs each write that sets a dirty bit.
    const PML: bool;
    /// A software bit: the host allows writes to the page.
    const HOST_WRITABLE: u64;
    /// A software bit: only dirty logging removed the right to write, so a fast page fault may restore it without the
    /// lock.
    const MMU_WRITABLE: u64;
    /// The bits of an MMIO entry. Hardware refuses it with an exit of its own kind.
    const MMIO: u64;
    /// The bits that distinguish an MMIO entry.
    const MMIO_MASK: u64;

    /// The bits that grant `rights`.
    fn encode(rights: Rights) -> u64;

    /// The rights that `raw` grants in hardware.
    fn decode(raw: u64) -> Rights;

    /// Whether an entry can grant exactly `rights`.
    fn encodes(rights: Rights) -> bool;

    /// The bits below the address that must be clear in a link at `level`.
    fn reserved_in_link(level: u8) -> u64;
}

/// The contents of a new leaf.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaf {
    pub(crate) pfn: Pfn,
    pub(crate) rights: Rights,
    /// The size of the leaf, which maps pages from `pfn` on.
    pub(crate) level: Level,
    /// Whether the host allows writes, though the guest may not write.
    pub(crate) host_writable: bool,
    /// Whether the leaf is known to be in use. A fault says so; after a prefetch the page walker will tell.
    pub(crate) young: bool,
}

/// One entry of a table page in format `F`. Zero is not present.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(crate) struct Entry<F>(u64, PhantomData<F>);

impl<F: Format> Entry<F> {
    /// Not present.
    pub(crate) const ABSENT: Self = Self::from_raw(0);

    /// The entry that a table page holds as `raw`.
    pub(crate) const fn from_raw(raw: u64) -> Self {
        Self(raw, PhantomData)
    }

    /// What a table page holds, as hardware reads it.
    pub(crate) const fn raw(self) -> u64 {
        self.0
    }

    /// A leaf.
    pub(crate) fn leaf(leaf: Leaf) -> Self {
        debug_assert!(F::encodes(leaf.rights), "{} cannot be granted alone", leaf.rights);
        let writable = if leaf.rights.contains(Rights::W) { F::MMU_WRITABLE | F::DIRTY } else { 0 };
        let host_writable = if leaf.host_writable { F::HOST_WRITABLE } else { 0 };
        let page = u64::from(leaf.pfn.raw()) << PAGE_SHIFT;
        let page = if leaf.level == Level::Page4K { page } else { page | F::PAGE_SIZE };
        let entry = Self::from_raw(page | F::LEAF | F::PRESENT | F::encode(leaf.rights) | writable | host_writable);
        if leaf.young { entry.accessed() } else { entry.aged() }
    }

    /// An MMIO entry: it remembers that `gfn` has no memslot, as long as the memslot generation stays the same.
    pub(crate) const fn mmio(gfn: Gfn, generation: u64) -> Self {
        let ((low, bits), (high, _)) = (MMIO_GENERATION_LOW, MMIO_GENERATION_HIGH);
        let page = (gfn.raw() << PAGE_SHIFT) & ADDRESS & !F::MMIO;
        Self::from_raw(F::MMIO | page | (generation & ((1 << bits) - 1)) << low | generation >> bits << high)
    }

    /// The memslot generation of an MMIO entry.
    pub(crate) fn mmio_generation(self) -> Option<u64> {
        if self.0 & F::MMIO_MASK != F::MMIO {
            return None;
        }
        let part = |(shift, bits): (u32, u32)| (self.0 >> shift) & ((1 << bits) - 1);
        Some(part(MMIO_GENERATION_LOW) | part(MMIO_GENERATION_HIGH) << MMIO_GENERATION_LOW.1)
    }

    /// The gfn of an MMIO entry (`get_mmio_spte_gfn()`).
    pub(crate) const fn mmio_gfn(self) -> Gfn {
        Gfn::new((self.0 & ADDRESS & !F::MMIO) >> PAGE_SHIFT)
    }

    /// A link to table number `table`.
    pub(crate) fn link(table: u32) -> Self {
        Self::from_raw(u64::from(table) << PAGE_SHIFT | F::PRESENT | F::LINK)
    }

    /// Whether the entry is present, even if it grants nothing now.
    pub(crate) const fn is_present(self) -> bool {
        self.0 & F::PRESENT != 0
    }

    /// The table that a link points to.
    pub(crate) const fn table(self) -> u32 {
        ((self.0 & ADDRESS) >> PAGE_SHIFT) as u32
    }

    /// The first page that a leaf maps.
    pub(crate) const fn pfn(self) -> Pfn {
        Pfn::new(self.table())
    }

    /// The rights that a leaf grants.
    pub(crate) fn rights(self) -> Rights {
        F::decode(self.0)
    }

    /// Whether writes need no fault, now or after ageing is undone.
    pub(crate) fn is_writable(self) -> bool {
        self.is_present() && self.restored().0 & F::WRITE != 0
    }

    /// Whether a fast page fault may make the entry writable.
    pub(crate) const fn is_mmu_writable(self) -> bool {
        self.0 & F::MMU_WRITABLE != 0
    }

    /// The entry with the right to write.
    pub(crate) const fn writable(self) -> Self {
        Self::from_raw(self.0 | F::WRITE | F::DIRTY)
    }

    /// Whether the page was written since the dirty bit was cleared. Always true in a layout without dirty bits.
    pub(crate) const fn is_dirty(self) -> bool {
        self.0 & F::DIRTY == F::DIRTY
    }

    /// The entry after a write by the page walker.
    pub(crate) const fn dirtied(self) -> Self {
        Self::from_raw(self.0 | F::DIRTY)
    }

    /// The entry with a clear dirty bit. The next write sets it again and is logged.
    pub(crate) const fn cleaned(self) -> Self {
        Self::from_raw(self.0 & !F::DIRTY)
    }

    /// The entry without the right to write. If `lasting`, a fast page fault cannot restore it either.
    pub(crate) const fn write_protected(self, lasting: bool) -> Self {
        let saved = match F::SAVED_RIGHTS_SHIFT {
            Some(shift) => F::WRITE << shift,
            None => 0,
        };
        let taken = F::WRITE | saved | if lasting { F::MMU_WRITABLE } else { 0 };
        Self::from_raw(self.0 & !taken)
    }

    /// Whether the page was used since the entry was aged.
    pub(crate) fn is_accessed(self) -> bool {
        if F::ACCESSED == 0 { !self.is_idle() } else { self.0 & F::ACCESSED != 0 }
    }

    /// The entry after a use by the page walker.
    pub(crate) const fn accessed(self) -> Self {
        Self::from_raw(self.0 | F::ACCESSED)
    }

    /// The entry after ageing (`mark_spte_for_access_track()` in a layout without an accessed bit).
    pub(crate) fn aged(self) -> Self {
        match F::SAVED_RIGHTS_SHIFT {
            None => Self::from_raw(self.0 & !F::ACCESSED),
            Some(shift) if !self.is_idle() => Self::from_raw(self.0 & !F::RIGHTS | (self.0 & F::RIGHTS) << shift),
            Some(_) => self,
        }
    }

    /// Whether the entry is present but grants nothing since it was aged (`is_access_track_spte()`).
    pub(crate) fn is_idle(self) -> bool {
        F::SAVED_RIGHTS_SHIFT.is_some() && self.is_present() && self.0 & F::RIGHTS == 0
    }

    /// The entry with the rights that ageing removed (`restore_acc_track_spte()`).
    pub(crate) fn restored(self) -> Self {
        match F::SAVED_RIGHTS_SHIFT {
            Some(shift) if self.is_idle() => {
                let saved = self.0 & (F::RIGHTS << shift);
                Self::from_raw(self.0 & !saved | saved >> shift)
            }
            _ => self,
        }
    }

    /// The page that a leaf at `level` maps at `gpa`.
    pub(crate) const fn pfn_at(self, gpa: Gpa, level: u8) -> Pfn {
        self.pfn().add(gpa.page() & (pages_of_entry(level) - 1))
    }

    /// The entry as the model sees it: the page at `gpa`, and the rights that the guest can use unnoticed. A write that
    /// sets the dirty bit is noticed.
    pub(crate) fn spte(self, gpa: Gpa, level: u8) -> Option<Spte> {
        if !self.is_present() {
            return None;
        }
        let noticed = if self.is_dirty() { Rights::NONE } else { Rights::W };
        let spte = Spte::new(self.pfn_at(gpa, level), self.rights().minus(noticed))?;
        Some(spte.at_level(leaf_level(level)))
    }

    /// Whether the entry is a leaf at `level`.
    pub(crate) const fn is_leaf(self, level: u8) -> bool {
        level == 1 || self.0 & F::PAGE_SIZE != 0
    }

    /// The reserved bits that are set in this entry, on hardware with `maxphyaddr` address bits. Stolen bits never
    /// stand in an entry; they only select it.
    pub(crate) fn reserved_bits(self, level: u8, maxphyaddr: u8) -> u64 {
        let address = ADDRESS & u64::MAX << maxphyaddr;
        let below =
            if self.is_leaf(level) { ADDRESS & ((1 << table_shift(level)) - 1) } else { F::reserved_in_link(level) };
        self.0 & (address | below)
    }

    /// The same entry with `address`, which is page-aligned, as its page or table.
    pub(crate) const fn placed(self, address: u64) -> Self {
        Self::from_raw(self.0 & !ADDRESS | address)
    }
}

/// The lowest address bit of the index into a table of `level`.
const fn table_shift(level: u8) -> u32 {
    PAGE_SHIFT + LEVEL_BITS * (level as u32 - 1)
}

/// Whether `address` is a valid page address.
pub(crate) const fn is_page_aligned(address: u64) -> bool {
    address & !ADDRESS == 0
}

/// The index of `gpa`, with its stolen bits, in a table of `level`.
pub(crate) const fn index(gpa: Gpa, level: u8) -> usize {
    (gpa.raw() >> table_shift(level)) as usize & (ENTRIES - 1)
}

/// The number of pages that an entry of a table of `level` translates.
pub(crate) const fn pages_of_entry(level: u8) -> u64 {
    pages_of_table(level - 1)
}

/// The number of those pages from `gpa` on.
pub(crate) const fn pages_from(gpa: Gpa, level: u8) -> u64 {
    pages_of_entry(level) - (gpa.page() & (pages_of_entry(level) - 1))
}

/// The size of a leaf in a table of `level`.
pub(crate) const fn leaf_level(level: u8) -> Level {
    match level {
        1 => Level::Page4K,
        2 => Level::Page2M,
        _ => Level::Page1G,
    }
}

/// The level of the tables that hold leaves of this size: the inverse of [`leaf_level`].
pub(crate) const fn table_level(leaf: Level) -> u8 {
    leaf as u8 + 1
}

/// The number of pages that a table of `level` translates.
pub(crate) const fn pages_of_table(level: u8) -> u64 {
    1 << (LEVEL_BITS * level as u32)
}
