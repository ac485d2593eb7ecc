//! The host's pages: which physical page is behind each page of user space, what may be done with it, and how large a mapping it is
//! part of.
//!
//! This stands for Linux's own memory management. A page that was taken away is replaced by a fresh one when it is needed next; one
//! that is write-protected, as after `fork()`, is replaced by a copy when it is written.
//!
//! UNSAFETY: writes the guest's pages, the `struct page` of each and the page tables that KVM reads the size of a mapping from.

#![expect(unsafe_code, reason = "writes the guest's memory, and what the kernel knows of it")]

use super::heap;
use super::physical::{self, HEAP_END, HVA, HVA_BYTES, PAGE, PAGES, PHYSICAL, PHYSICAL_BYTES};
use crate::single::Single;
use std::collections::BTreeMap;

/// What may be done with a page of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Everything.
    Writable,
    /// Whoever writes it gets a copy.
    ReadOnly,
    /// Nothing: its look-up fails.
    None,
}

/// A page that differs from what a fresh host has.
#[derive(Clone, Copy, Debug)]
struct Page {
    /// `None`: taken away, and nothing needed it since.
    pfn: Option<u64>,
    protection: Protection,
}

struct Host {
    file: i32,
    /// Page N of user space is page N of the guest's memory, if it is not here.
    pages: BTreeMap<u64, Page>,
    /// Where each page lies that is mapped elsewhere than at first.
    moved: BTreeMap<u64, u64>,
    /// The next page that was never behind another.
    next: u64,
    /// The first page after all that were ever behind one.
    high: u64,
    /// Whose `struct page` counts references.
    counted: Vec<u64>,
    /// The kernel's `struct page`: bytes, and where the count is.
    page_size: u64,
    refcount: u64,
    /// The address of each page table, by the level of its entries and its place.
    tables: BTreeMap<(u8, u64), u64>,
    /// Whether anything is mapped larger than 4 KiB.
    large: bool,
}

/// The first page of the guest's memory.
pub(crate) const FIRST_PFN: u64 = HEAP_END / PAGE;
/// Pages of user space.
pub(crate) const HOST_PAGES: u64 = HVA_BYTES / PAGE;
/// Page tables of the host that do not say what is below 4 KiB: present, writable, user, accessed, dirty.
const TABLE: u64 = 0x67;
/// A leaf of a table that is not the last.
const HUGE: u64 = 0xe7;

static HOST: Single<Host> = Single::new(Host {
    file: -1,
    pages: BTreeMap::new(),
    moved: BTreeMap::new(),
    next: FIRST_PFN + HOST_PAGES,
    high: FIRST_PFN + HOST_PAGES,
    counted: Vec::new(),
    page_size: 64,
    refcount: 0,
    tables: BTreeMap::new(),
    large: false,
});

/// Begin: the file that physical memory is, the size of a `struct page`, where its count lies. The address of the top page table.
pub(crate) fn begin(file: i32, page_size: u64, refcount: u64) -> u64 {
    let mut host = HOST.borrow();
    (host.file, host.page_size, host.refcount) = (file, page_size, refcount);
    let top = heap::alloc_pages(0, true);
    host.tables.insert((4, 0), top);
    top
}

/// The address of page `page` in user space.
pub(crate) const fn hva(page: u64) -> u64 {
    HVA + page * PAGE
}

/// The page that is behind `page`, if one is.
pub(crate) fn pfn(page: u64) -> Option<u64> {
    HOST.borrow().page(page).pfn
}

/// Look the page up as `get_user_pages()` does: its `struct page`, with a reference, and whether it may be written. With `fast` only
/// if it is there as wanted, and nothing changes.
pub(crate) fn look_up(address: u64, write: bool, fast: bool) -> Option<u64> {
    if !(HVA..HVA + HVA_BYTES).contains(&address) {
        return None;
    }
    HOST.borrow().look_up((address - HVA) / PAGE, write, fast)
}

/// References to a page, without that of the host itself.
pub(crate) fn references(pfn: u64) -> i32 {
    let host = HOST.borrow();
    // SAFETY: a `struct page`.
    let count: i32 = unsafe { physical::read(host.count_at(pfn)) };
    count - i32::from(host.counted.contains(&pfn))
}

/// Take `pages` pages away. The next look-up finds fresh ones, with zeros.
pub(crate) fn take_away(page: u64, pages: u64) {
    let mut host = HOST.borrow();
    host.set_level(page, pages, 1);
    for page in page..page + pages {
        host.pages.insert(page, Page { pfn: None, protection: Protection::Writable });
    }
}

/// Put fresh pages, with zeros, behind `pages` pages, in one piece that begins at a multiple of `align` pages: the first.
pub(crate) fn renew(page: u64, pages: u64, align: u64) -> u64 {
    let mut host = HOST.borrow();
    host.set_level(page, pages, 1);
    let pfn = host.fresh(pages, align);
    for offset in 0..pages {
        host.pages.insert(page + offset, Page { pfn: Some(pfn + offset), protection: Protection::Writable });
    }
    host.map(page, pages, pfn);
    pfn
}

/// What may be done with `pages` pages from now on. The pages stay what they are.
pub(crate) fn protect(page: u64, pages: u64, protection: Protection) {
    let mut host = HOST.borrow();
    for page in page..page + pages {
        let before = host.page(page);
        host.pages.insert(page, Page { protection, ..before });
    }
}

/// Map `pages` pages as level `level` (1: 4 KiB, 2: 2 MiB, 3: 1 GiB) from now on (`host_pfn_mapping_level()`).
pub(crate) fn set_level(page: u64, pages: u64, level: u8) {
    HOST.borrow().set_level(page, pages, level);
}

/// Become what it was at first. Pages that were used hold zeros again.
pub(crate) fn reset() {
    HOST.borrow().reset();
}

impl Host {
    fn page(&self, page: u64) -> Page {
        let first = Page { pfn: Some(FIRST_PFN + page), protection: Protection::Writable };
        self.pages.get(&page).copied().unwrap_or(first)
    }

    fn count_at(&self, pfn: u64) -> u64 {
        PAGES + pfn * self.page_size + self.refcount
    }

    fn look_up(&mut self, page: u64, write: bool, fast: bool) -> Option<u64> {
        let found = self.page(page);
        let copy = write && found.protection == Protection::ReadOnly;
        if found.protection == Protection::None || fast && (copy || found.pfn.is_none()) {
            return None;
        }
        let pfn = match found.pfn {
            Some(pfn) if !copy => pfn,
            old => {
                let pfn = self.fresh(1, 1);
                if let Some(old) = old {
                    let (from, to) = (PHYSICAL + old * PAGE, PHYSICAL + pfn * PAGE);
                    // SAFETY: two pages of the guest's memory.
                    unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, PAGE as usize) };
                }
                self.pages.insert(page, Page { pfn: Some(pfn), protection: Protection::Writable });
                self.map(page, 1, pfn);
                pfn
            }
        };
        // A large mapping is looked at by its first page, which the host holds as well.
        for first in [pfn & !0x1ff, pfn & !0x3_ffff] {
            self.hold(first);
        }
        let count = self.hold(pfn);
        // SAFETY: a `struct page`.
        unsafe { physical::write(self.count_at(pfn), count + 1) };
        Some(PAGES + pfn * self.page_size)
    }

    /// References to `pfn`, of which the host has one.
    fn hold(&mut self, pfn: u64) -> i32 {
        let at = self.count_at(pfn);
        // SAFETY: a `struct page`.
        unsafe {
            let count: i32 = physical::read(at);
            if count == 0 {
                self.counted.push(pfn);
                physical::write(at, 1_i32);
            }
            count.max(1)
        }
    }

    /// Pages that were never behind another since the last reset.
    fn fresh(&mut self, pages: u64, align: u64) -> u64 {
        let pfn = self.next.next_multiple_of(align);
        self.next = pfn + pages;
        assert!(self.next * PAGE <= PHYSICAL_BYTES, "the guest's pages fit into physical memory");
        if pfn < self.high {
            let at = PHYSICAL + pfn * PAGE;
            // Of more than a page most was never touched, so it is given back instead of written.
            // SAFETY: pages of the guest's memory that are behind none.
            unsafe {
                if pages == 1 {
                    physical::fill(at, 0, PAGE);
                } else {
                    libc::madvise(at as *mut _, (pages * PAGE) as usize, libc::MADV_REMOVE);
                }
            }
        }
        self.high = self.high.max(self.next);
        pfn
    }

    fn map(&mut self, page: u64, pages: u64, pfn: u64) {
        physical::remap(self.file, hva(page), pages * PAGE, pfn * PAGE);
        self.moved.insert(page, pages);
    }

    /// The table with entries of `level` on the way to `page`, made if there is none.
    fn table(&mut self, level: u8, page: u64) -> u64 {
        let place = hva(page) >> (12 + 9 * u32::from(level));
        let place = if level == 4 { 0 } else { place };
        if let Some(table) = self.tables.get(&(level, place)) {
            return *table;
        }
        let table = heap::alloc_pages(0, true);
        let entry = self.entry(level + 1, page);
        // SAFETY: an entry of a table.
        unsafe { physical::write(entry, (table - PHYSICAL) | TABLE) };
        self.tables.insert((level, place), table);
        table
    }

    /// Where the entry of `level` for `page` lies.
    fn entry(&mut self, level: u8, page: u64) -> u64 {
        self.table(level, page) + (hva(page) >> (12 + 9 * (u32::from(level) - 1)) & 511) * 8
    }

    fn set_level(&mut self, page: u64, pages: u64, level: u8) {
        self.large |= level > 1;
        if !self.large {
            return;
        }
        let step = 1 << (9 * (u64::from(level.max(2)) - 1));
        let mut at = page - page % step;
        while at < page + pages {
            let leaf = |host: &Self| host.page(at).pfn.map_or(0, |pfn| (pfn * PAGE) | HUGE);
            let entry = self.entry(3, at);
            if level == 3 {
                // SAFETY: an entry of a table.
                unsafe { physical::write(entry, leaf(self)) };
            } else {
                let (table, smaller) = (self.table(2, at), self.entry(2, at));
                let value = if level == 2 { leaf(self) } else { 0 };
                // SAFETY: entries of tables.
                unsafe {
                    // A larger leaf is taken apart as a whole.
                    if physical::read::<u64>(entry) != (table - PHYSICAL) | TABLE {
                        physical::fill(table, 0, PAGE);
                    }
                    physical::write(entry, (table - PHYSICAL) | TABLE);
                    physical::write(smaller, value);
                }
            }
            at += step;
        }
    }

    fn reset(&mut self) {
        for (page, pages) in std::mem::take(&mut self.moved) {
            physical::remap(self.file, hva(page), pages * PAGE, (FIRST_PFN + page) * PAGE);
        }
        for pfn in std::mem::take(&mut self.counted) {
            // SAFETY: a `struct page`, and a page of the guest's memory.
            unsafe {
                physical::write(self.count_at(pfn), 0_i32);
                physical::fill(PHYSICAL + pfn * PAGE, 0, PAGE);
            }
        }
        self.pages.clear();
        self.next = FIRST_PFN + HOST_PAGES;
        if std::mem::take(&mut self.large) {
            for ((level, _), table) in &self.tables {
                if *level <= 3 {
                    // SAFETY: a table.
                    unsafe { physical::fill(*table, 0, PAGE) };
                }
            }
        }
    }
}
