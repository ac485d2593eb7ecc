//! Second-stage entries, and how a GPA indexes the tables: what the MMU does with an entry whatever its layout. The layouts
//! have a file each, and [`Format`] is what there is to say of one.

mod ept;
mod npt;

pub use ept::{Ept, EptNoAd};
pub use npt::Npt;

use gpa_model::addr::PAGE_SHIFT;
use gpa_model::{Gfn, Gpa, Level, Pfn, Rights, Spte};
use std::fmt;
use std::marker::PhantomData;

/// Entries of one table page.
pub(crate) const ENTRIES: usize = 512;

const LEVEL_BITS: u32 = 9;
/// Address bits of an entry, in any format.
const ADDRESS: u64 = ((1 << 52) - 1) & !((1 << PAGE_SHIFT) - 1);
/// Where an MMIO entry keeps the low bits of the memslot generation it was made in, and how many.
const MMIO_GENERATION_LOW: (u32, u32) = (3, 8);
/// Where it keeps the others.
const MMIO_GENERATION_HIGH: (u32, u32) = (52, 11);

/// The bit layout of second-stage entries. A type, never a value: the layout costs nothing at run time.
pub trait Format: Copy + Eq + fmt::Debug + Send + Sync + 'static {
    /// The bits that say what the guest may do.
    const RIGHTS: u64;
    /// That of them without which nothing can be written. The same bit in every layout grants it when it is set.
    const WRITE: u64;
    /// The rights of an entry that points to a table: its leaves decide.
    const LINK: u64;
    /// What every leaf has, such as a memory type.
    const LEAF: u64;
    /// Marks a leaf above level 1.
    const PAGE_SIZE: u64;
    /// Software bit: the MMU made this entry and has not taken it away, whatever hardware makes of its rights.
    const PRESENT: u64;
    /// Set by the page walker when the entry is used; 0 if it sets none.
    const ACCESSED: u64;
    /// Set by the page walker on a write; 0 if it sets none.
    const DIRTY: u64;
    /// Where an entry that was aged keeps its rights, if there is no accessed bit: it grants none until a fault shows that it
    /// is in use.
    const SAVED_RIGHTS_SHIFT: Option<u32>;
    /// Whether the processor logs the address of a write that sets a dirty bit.
    const PML: bool;
    /// Software bit: the host lets the page be written.
    const HOST_WRITABLE: u64;
    /// Software bit: the MMU may make the entry writable again without taking the lock, because only dirty logging took the
    /// right away.
    const MMU_WRITABLE: u64;
    /// An entry without a page: accesses go to user space. It is one that hardware refuses in a way of its own.
    const MMIO: u64;
    /// The bits of an entry that tell whether it is one.
    const MMIO_MASK: u64;

    /// The bits for `rights`.
    fn encode(rights: Rights) -> u64;

    /// The rights that `raw` grants in hardware.
    fn decode(raw: u64) -> Rights;

    /// Whether an entry can grant `rights` and no other.
    fn encodes(rights: Rights) -> bool;

    /// Bits below the address that must be clear in a link at `level`.
    fn reserved_in_link(level: u8) -> u64;
}

/// What a new leaf is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaf {
    pub(crate) pfn: Pfn,
    pub(crate) rights: Rights,
    /// How much it translates, from `pfn` on.
    pub(crate) level: Level,
    /// Whether the host lets the page be written, though the guest may not.
    pub(crate) host_writable: bool,
    /// Whether it is known to be used: a fault says so, prefetch leaves it to the walker.
    pub(crate) young: bool,
}

/// One entry of a table page, in format `F`. Zero is not present.
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

    /// An entry that remembers that there is no memslot for `gfn`, for as long as the memslots stay what they are.
    pub(crate) const fn mmio(gfn: Gfn, generation: u64) -> Self {
        let ((low, bits), (high, _)) = (MMIO_GENERATION_LOW, MMIO_GENERATION_HIGH);
        let page = (gfn.raw() << PAGE_SHIFT) & ADDRESS & !F::MMIO;
        Self::from_raw(F::MMIO | page | (generation & ((1 << bits) - 1)) << low | generation >> bits << high)
    }

    /// The generation of an MMIO entry.
    pub(crate) fn mmio_generation(self) -> Option<u64> {
        if self.0 & F::MMIO_MASK != F::MMIO {
            return None;
        }
        let part = |(shift, bits): (u32, u32)| (self.0 >> shift) & ((1 << bits) - 1);
        Some(part(MMIO_GENERATION_LOW) | part(MMIO_GENERATION_HIGH) << MMIO_GENERATION_LOW.1)
    }

    /// The frame that an MMIO entry remembers (`get_mmio_spte_gfn()`).
    pub(crate) const fn mmio_gfn(self) -> Gfn {
        Gfn::new((self.0 & ADDRESS & !F::MMIO) >> PAGE_SHIFT)
    }

    /// A pointer to table number `table`.
    pub(crate) fn link(table: u32) -> Self {
        Self::from_raw(u64::from(table) << PAGE_SHIFT | F::PRESENT | F::LINK)
    }

    /// Whether anything is here, even if it grants nothing right now.
    pub(crate) const fn is_present(self) -> bool {
        self.0 & F::PRESENT != 0
    }

    /// The table a non-leaf entry points to.
    pub(crate) const fn table(self) -> u32 {
        ((self.0 & ADDRESS) >> PAGE_SHIFT) as u32
    }

    /// The first page a leaf maps.
    pub(crate) const fn pfn(self) -> Pfn {
        Pfn::new(self.table())
    }

    /// What a leaf lets the guest do.
    pub(crate) fn rights(self) -> Rights {
        F::decode(self.0)
    }

    /// Whether a write through it needs no fault, or will need none once it is in use again.
    pub(crate) fn is_writable(self) -> bool {
        self.is_present() && self.restored().0 & F::WRITE != 0
    }

    /// Whether it may be made writable without the lock.
    pub(crate) const fn is_mmu_writable(self) -> bool {
        self.0 & F::MMU_WRITABLE != 0
    }

    /// The entry with the right to write.
    pub(crate) const fn writable(self) -> Self {
        Self::from_raw(self.0 | F::WRITE | F::DIRTY)
    }

    /// Whether it was written through since its dirty bit was cleared; always, if there is no such bit.
    pub(crate) const fn is_dirty(self) -> bool {
        self.0 & F::DIRTY == F::DIRTY
    }

    /// The entry as the page walker leaves it after a write.
    pub(crate) const fn dirtied(self) -> Self {
        Self::from_raw(self.0 | F::DIRTY)
    }

    /// The entry with its dirty bit clear: the next write through it sets it again, and is logged.
    pub(crate) const fn cleaned(self) -> Self {
        Self::from_raw(self.0 & !F::DIRTY)
    }

    /// The entry without the right to write. If `lasting`, it cannot be given back without the lock either.
    pub(crate) const fn write_protected(self, lasting: bool) -> Self {
        let saved = match F::SAVED_RIGHTS_SHIFT {
            Some(shift) => F::WRITE << shift,
            None => 0,
        };
        let taken = F::WRITE | saved | if lasting { F::MMU_WRITABLE } else { 0 };
        Self::from_raw(self.0 & !taken)
    }

    /// Whether the page was used through this entry since it was aged.
    pub(crate) fn is_accessed(self) -> bool {
        if F::ACCESSED == 0 { !self.is_idle() } else { self.0 & F::ACCESSED != 0 }
    }

    /// The entry as the page walker leaves it.
    pub(crate) const fn accessed(self) -> Self {
        Self::from_raw(self.0 | F::ACCESSED)
    }

    /// The entry as ageing leaves it (`mark_spte_for_access_track()` where there is no accessed bit).
    pub(crate) fn aged(self) -> Self {
        match F::SAVED_RIGHTS_SHIFT {
            None => Self::from_raw(self.0 & !F::ACCESSED),
            Some(shift) if !self.is_idle() => Self::from_raw(self.0 & !F::RIGHTS | (self.0 & F::RIGHTS) << shift),
            Some(_) => self,
        }
    }

    /// Whether it is present, but grants nothing until a fault shows that it is in use (`is_access_track_spte()`).
    pub(crate) fn is_idle(self) -> bool {
        F::SAVED_RIGHTS_SHIFT.is_some() && self.is_present() && self.0 & F::RIGHTS == 0
    }

    /// The entry with the rights that ageing took (`restore_acc_track_spte()`).
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

    /// What the model calls a present leaf: the page at `gpa`, and what the guest may do with it unnoticed. A write that sets
    /// the dirty bit is noticed.
    pub(crate) fn spte(self, gpa: Gpa, level: u8) -> Option<Spte> {
        if !self.is_present() {
            return None;
        }
        let noticed = if self.is_dirty() { Rights::NONE } else { Rights::W };
        let spte = Spte::new(self.pfn_at(gpa, level), self.rights().minus(noticed))?;
        Some(spte.at_level(leaf_level(level)))
    }

    /// Whether it ends the walk at `level`.
    pub(crate) const fn is_leaf(self, level: u8) -> bool {
        level == 1 || self.0 & F::PAGE_SIZE != 0
    }

    /// The bits set in this entry that hardware with `maxphyaddr` address bits wants clear. What lies above is the
    /// hypervisor's own; a stolen bit is never in an entry, it only leads to one.
    pub(crate) fn reserved_bits(self, level: u8, maxphyaddr: u8) -> u64 {
        let address = ADDRESS & u64::MAX << maxphyaddr;
        let below =
            if self.is_leaf(level) { ADDRESS & ((1 << table_shift(level)) - 1) } else { F::reserved_in_link(level) };
        self.0 & (address | below)
    }

    /// The same entry with its page or table at physical address `address`, which is page-aligned.
    pub(crate) const fn placed(self, address: u64) -> Self {
        Self::from_raw(self.0 & !ADDRESS | address)
    }
}

/// The bits of an address that are below the index into a table of `level`.
const fn table_shift(level: u8) -> u32 {
    PAGE_SHIFT + LEVEL_BITS * (level as u32 - 1)
}

/// Whether a table or page can be at physical address `address`.
pub(crate) const fn is_page_aligned(address: u64) -> bool {
    address & !ADDRESS == 0
}

/// The index of `gpa`, stolen bits and all, in a table of `level`.
pub(crate) const fn index(gpa: Gpa, level: u8) -> usize {
    (gpa.raw() >> table_shift(level)) as usize & (ENTRIES - 1)
}

/// How many pages an entry of a table of `level` translates.
pub(crate) const fn pages_of_entry(level: u8) -> u64 {
    pages_of_table(level - 1)
}

/// How many of the pages that an entry of a table of `level` translates lie at `gpa` and after it.
pub(crate) const fn pages_from(gpa: Gpa, level: u8) -> u64 {
    pages_of_entry(level) - (gpa.page() & (pages_of_entry(level) - 1))
}

/// What a leaf in a table of `level` is called.
pub(crate) const fn leaf_level(level: u8) -> Level {
    match level {
        1 => Level::Page4K,
        2 => Level::Page2M,
        _ => Level::Page1G,
    }
}

/// The level of the tables that hold such leaves: the inverse of [`leaf_level`].
pub(crate) const fn table_level(leaf: Level) -> u8 {
    leaf as u8 + 1
}

/// How many pages a whole table of `level` translates.
pub(crate) const fn pages_of_table(level: u8) -> u64 {
    1 << (LEVEL_BITS * level as u32)
}
