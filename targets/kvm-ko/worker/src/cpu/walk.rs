//! A walk of page tables, as the processor makes it.
//!
//! UNSAFETY: reads and writes entries of tables, which are where the kernel has put them.

#![expect(unsafe_code, reason = "reads and writes page tables")]

use super::access::Kind;
use super::format::{ADDRESS, Format};
use crate::memory::{PAGE, PHYSICAL, PHYSICAL_BYTES, physical};

/// Bits of the error code of a page fault.
pub(crate) mod error {
    /// The entry is present.
    pub(crate) const PRESENT: u64 = 1;
    /// A write.
    pub(crate) const WRITE: u64 = 1 << 1;
    /// Of a user, as every access by nested tables is.
    pub(crate) const USER: u64 = 1 << 2;
    /// A reserved bit is set.
    pub(crate) const RESERVED: u64 = 1 << 3;
    /// An instruction fetch.
    pub(crate) const FETCH: u64 = 1 << 4;
    /// In nested tables, on the way from the final address of the guest.
    pub(crate) const GUEST_FINAL: u64 = 1 << 32;
    /// In nested tables, on the way from a page table of the guest.
    pub(crate) const GUEST_PAGE: u64 = 1 << 33;
}

/// Tables, and how they are to be walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tables {
    /// The physical address of the first.
    pub(crate) root: u64,
    /// Levels: 5, 4, or 3 for PAE.
    pub(crate) levels: u8,
    /// Whether the access is one of a user, as all accesses by nested tables are.
    pub(crate) user: bool,
    /// Bits of a physical address.
    pub(crate) physical_bits: u8,
    /// Of the entries.
    pub(crate) format: Format,
}

/// A present leaf, with what all levels above allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// As it stands in the table.
    pub(crate) raw: u64,
    /// Where it stands, as a physical address.
    pub(crate) at: u64,
    /// 1 for 4 KiB, 2 for 2 MiB, 3 for 1 GiB.
    pub(crate) level: u8,
    /// Of all levels.
    pub(crate) writable: bool,
    /// Of all levels.
    pub(crate) executable: bool,
    /// Of all levels.
    pub(crate) user: bool,
    /// Of the entry.
    pub(crate) format: Format,
}

impl Leaf {
    /// Where `address` leads.
    pub(crate) const fn physical(&self, address: u64) -> u64 {
        let below = (1 << (12 + 9 * (self.level as u64 - 1))) - 1;
        self.raw & ADDRESS & !below | address & below
    }

    /// Whether the processor has used it; not known, and so true, where it keeps no such bit.
    pub(crate) const fn accessed(&self) -> bool {
        self.raw & self.format.accessed() == self.format.accessed()
    }

    /// Whether the processor has written by it; as [`Leaf::accessed`].
    pub(crate) const fn dirty(&self) -> bool {
        self.raw & self.format.dirty() == self.format.dirty()
    }

    /// Whether it allows an access of `kind`, by a user or not. A supervisor's writes are not exempt (CR0.WP is set).
    pub(crate) const fn allows(&self, kind: Kind, user: bool) -> bool {
        let right = match kind {
            Kind::Write | Kind::CompareExchange => self.writable,
            Kind::Execute => self.executable,
            _ => true,
        };
        right && (self.user || !user)
    }
}

/// Walk to `address` for an access of `kind`; with `touch` the walk sets accessed and dirty bits. The leaf, or the error code.
pub(crate) fn walk(tables: &Tables, address: u64, kind: Kind, touch: bool) -> Result<Leaf, u64> {
    let writes = matches!(kind, Kind::Write | Kind::CompareExchange);
    let mut code = if writes { error::WRITE } else { 0 };
    code |= if kind == Kind::Execute { error::FETCH } else { 0 };
    code |= if tables.user { error::USER } else { 0 };
    let (mut writable, mut executable, mut user) = (true, true, true);
    let mut table = tables.root & ADDRESS;
    if tables.levels == 3 {
        // The four entries of PAE are 32 bytes at any place of the first 4 GiB.
        table = tables.root & 0xffff_ffe0;
    }
    for level in (1..=tables.levels).rev() {
        let index = address >> (12 + 9 * (u64::from(level) - 1)) & 511;
        // Those of PAE have no rights and no accessed bit.
        let bare = tables.levels == 3 && level == 3;
        let at = table + index * 8;
        let Some(raw) = read(at) else { return Err(code) };
        let says = tables.format.read(raw, level, tables.physical_bits);
        if !says.present {
            return Err(code);
        }
        if says.reserved {
            return Err(code | error::PRESENT | error::RESERVED);
        }
        if !bare {
            writable &= says.writable;
            user &= says.user;
            executable &= says.executable;
        }
        let (accessed, dirty) = (tables.format.accessed(), tables.format.dirty());
        if level == 1 || says.large && !bare {
            let leaf = Leaf { raw, at, level, writable, executable, user, format: tables.format };
            if !leaf.allows(kind, tables.user) {
                return Err(code | error::PRESENT);
            }
            let touched = raw | accessed | if writes { dirty } else { 0 };
            if touch && touched != raw {
                write(at, touched);
            }
            return Ok(Leaf { raw: if touch { touched } else { raw }, ..leaf });
        }
        if touch && !bare && raw & accessed != accessed {
            write(at, raw | accessed);
        }
        table = raw & ADDRESS;
    }
    Err(code)
}

/// The leaf that leads from `address`, if one is present, whatever it allows. Nothing is touched.
pub(crate) fn leaf_of(tables: &Tables, address: u64) -> Option<Leaf> {
    walk(&Tables { user: false, ..*tables }, address, Kind::Read, false).ok()
}

/// A table on the way down, and what all levels above allow: writing, fetching, a user.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inner {
    /// Its physical address.
    pub(crate) table: u64,
    /// Of its entries.
    pub(crate) level: u8,
    /// The first address that it translates.
    pub(crate) address: u64,
    /// What is allowed.
    pub(crate) rights: (bool, bool, bool),
    /// Bits of a physical address: KVM marks MMIO by one that is beyond.
    pub(crate) physical_bits: u8,
    /// Of the entries.
    pub(crate) format: Format,
}

impl Inner {
    /// The first of `tables`.
    pub(crate) const fn top(tables: &Tables) -> Self {
        Self {
            table: tables.root & ADDRESS,
            level: tables.levels,
            address: 0,
            rights: (true, true, true),
            physical_bits: tables.physical_bits,
            format: tables.format,
        }
    }

    const fn shift(&self) -> u64 {
        12 + 9 * (self.level as u64 - 1)
    }

    /// The entry with number `index`: another table, a present leaf, or nothing that is present.
    fn child(&self, index: u64) -> (Option<Inner>, Option<Leaf>) {
        let at = self.table + index * 8;
        let Some(raw) = read(at) else { return (None, None) };
        let says = self.format.read(raw, self.level, self.physical_bits);
        if !says.present || says.reserved {
            return (None, None);
        }
        let (writable, executable, user) = self.rights;
        let (writable, executable, user) =
            (writable && says.writable, executable && says.executable, user && says.user);
        if self.level > 1 && !says.large {
            let address = self.address | index << self.shift();
            let rights = (writable, executable, user);
            return (Some(Inner { table: raw & ADDRESS, level: self.level - 1, address, rights, ..*self }), None);
        }
        (None, Some(Leaf { raw, at, level: self.level, writable, executable, user, format: self.format }))
    }
}

/// The way to the address that was asked for last, so that the next need not begin at the top.
#[derive(Debug)]
pub(crate) struct Path(Vec<Inner>);

impl Path {
    /// At `top`.
    pub(crate) fn new(top: Inner) -> Self {
        Self(vec![top])
    }

    /// The present leaf that leads from `address`.
    pub(crate) fn leaf(&mut self, address: u64) -> Option<Leaf> {
        while let [.., last] = &*self.0
            && self.0.len() > 1
            && address >> (last.shift() + 9) != last.address >> (last.shift() + 9)
        {
            self.0.pop();
        }
        while let Some(last) = self.0.last() {
            match last.child(address >> last.shift() & 511) {
                (Some(inner), _) => self.0.push(inner),
                (None, leaf) => return leaf,
            }
        }
        None
    }
}

/// Visit all present leaves below `inner`, each with the first address that it translates.
pub(crate) fn leaves(inner: &Inner, visit: &mut impl FnMut(u64, &Leaf)) {
    for index in 0..512 {
        match inner.child(index) {
            (Some(below), _) => leaves(&below, visit),
            (None, Some(leaf)) => visit(inner.address | index << inner.shift(), &leaf),
            (None, None) => {}
        }
    }
}

/// Visit the table that `inner` is and all that hang from it, each with the entries that are not 0 and their index.
pub(crate) fn tables(inner: &Inner, visit: &mut impl FnMut(&Inner, &[(u64, u64)])) {
    let entries = (0..512).filter_map(|index| Some((index, read(inner.table + index * 8)?)));
    let entries: Vec<(u64, u64)> = entries.filter(|(_, raw)| *raw != 0).collect();
    visit(inner, &entries);
    for (index, _) in entries {
        if let (Some(below), _) = inner.child(index) {
            tables(&below, visit);
        }
    }
}

/// The eight bytes at a physical address; `None` where there is no memory.
pub(crate) fn read(at: u64) -> Option<u64> {
    // SAFETY: in the direct map.
    (at <= PHYSICAL_BYTES - 8).then(|| unsafe { physical::read(PHYSICAL + at) })
}

fn write(at: u64, value: u64) {
    // SAFETY: it was read just now.
    unsafe { physical::write(PHYSICAL + at, value) }
}

/// The bytes at a physical address, up to the end of its page; `None` where there is no memory.
pub(crate) fn bytes(at: u64, size: u64) -> Option<*mut u8> {
    (at < PHYSICAL_BYTES && at % PAGE + size <= PAGE).then_some((PHYSICAL + at) as *mut u8)
}
