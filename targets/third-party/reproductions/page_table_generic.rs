//! `page-table-generic` 0.9.1, by itself.
#![expect(unsafe_code, reason = "reads an entry while the crate is at work on its tables")]

use page_table_generic::{FrameAllocator, PageTable, PageTableEntry, PhysAddr, TableMeta, VirtAddr};
use std::cell::{Cell, RefCell};

const PAGE: usize = 0x1000;
const BLOCK: usize = 0x20_0000;

/// Tables are pages of the process, at the addresses they have there.
#[derive(Clone, Copy)]
struct Heap;

impl FrameAllocator for Heap {
    fn alloc_frame(&self) -> Option<PhysAddr> {
        #[repr(align(4096))]
        struct Page([u8; PAGE]);
        let page: &'static mut Page = Box::leak(Box::new(Page([0; PAGE])));
        Some(PhysAddr::from_usize(page.0.as_mut_ptr().expose_provenance()))
    }

    fn dealloc_frame(&self, _: PhysAddr) {
        EVENTS.with_borrow_mut(|events| events.push(Event::Freed));
    }

    fn phys_to_virt(&self, paddr: PhysAddr) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(paddr.as_usize())
    }
}

/// Bit 0: present. Bit 1: a leaf above the lowest level.
#[derive(Clone, Copy, Debug)]
struct Entry(usize);

impl PageTableEntry for Entry {
    type PteConfig = ();

    fn new_page(paddr: PhysAddr, (): (), is_huge: bool) -> Self {
        Self(paddr.as_usize() | 1 | usize::from(is_huge) << 1)
    }

    fn new_table(paddr: PhysAddr) -> Self {
        Self(paddr.as_usize() | 1)
    }

    fn paddr(&self, _: bool) -> PhysAddr {
        PhysAddr::from_usize(self.0 & !3)
    }

    fn config(&self, _: bool) {}

    fn present(&self) -> bool {
        self.0 & 1 != 0
    }

    fn huge(&self, is_dir: bool) -> bool {
        is_dir && self.0 & 2 != 0
    }

    fn unused(&self) -> bool {
        self.0 == 0
    }

    fn clear(&mut self) {
        self.0 = 0;
    }
}

#[derive(Clone, Copy)]
struct FourLevels;

impl TableMeta for FourLevels {
    type P = Entry;

    const PAGE_SIZE: usize = PAGE;
    const LEVEL_BITS: &[usize] = &[9, 9, 9, 9];
    const MAX_BLOCK_LEVEL: usize = 2;

    fn flush(_: Option<VirtAddr>) {
        // SAFETY: the root outlives the test that set it.
        let linked = unsafe { ROOT.get().cast::<usize>().as_ref() }.is_some_and(|entry| *entry != 0);
        EVENTS.with_borrow_mut(|events| events.push(Event::Flushed { linked }));
    }
}

/// What the crate asked for, and whether the first entry of the root led to a table by then.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Flushed { linked: bool },
    Freed,
}

thread_local! {
    static ROOT: Cell<*const u8> = const { Cell::new(std::ptr::null()) };
    static EVENTS: RefCell<Vec<Event>> = const { RefCell::new(Vec::new()) };
}

struct Table(PageTable<FourLevels, Heap>);

impl Table {
    fn new() -> Self {
        Self(PageTable::new(Heap).unwrap())
    }

    fn map(&mut self, start: usize, size: usize) {
        self.0.map_linear_pages(start.into(), start.into(), size, (), true).unwrap();
    }

    fn is_mapped(&self, at: usize) -> bool {
        self.0.is_mapped(at.into())
    }
}

/// Two blocks and half a block of pages. What is unmapped begins in the middle of the first block and ends with the last page.
#[test]
fn unmap_of_a_part_of_two_blocks_takes_the_first_whole_and_leaves_the_second() {
    let mut table = Table::new();
    table.map(2 * BLOCK, 2 * BLOCK + BLOCK / 2);
    assert!(table.0.unmap((2 * BLOCK + BLOCK / 2).into(), 2 * BLOCK).is_ok());
    // Right would be: mapped.
    assert!(!table.is_mapped(2 * BLOCK), "a page before the range is still mapped: the defect is mended");
    // Right would be: not mapped.
    assert!(table.is_mapped(4 * BLOCK), "a page of the range is not mapped any more: the defect is mended");
}

/// The range begins where nothing is mapped, in the middle of what an entry would translate, and reaches into the next entry.
#[test]
fn unmap_from_the_middle_of_an_empty_entry_leaves_the_first_pages_of_the_next() {
    let mut table = Table::new();
    table.map(3 * BLOCK, PAGE);
    assert!(table.0.unmap((2 * BLOCK + BLOCK / 2).into(), BLOCK).is_ok());
    // Right would be: not mapped.
    assert!(table.is_mapped(3 * BLOCK), "a page of the range is not mapped any more: the defect is mended");
}

/// A page goes, and the tables that it alone was in. The one flush comes while the entries that lead to them are still there, so a
/// processor may have read those since, and go by them to pages that are something else by now.
#[test]
fn unmap_frees_tables_without_a_flush_after_they_were_unlinked() {
    let mut table = Table::new();
    table.map(0, PAGE);
    ROOT.set(Heap.phys_to_virt(table.0.root_paddr()));
    EVENTS.take();
    table.0.unmap(0.into(), PAGE).unwrap();
    ROOT.set(std::ptr::null());
    // Right would be: a flush with nothing linked any more, before anything is freed.
    let freed = [Event::Freed; 3];
    assert_eq!(EVENTS.take(), [&[Event::Flushed { linked: true }][..], &freed].concat(), "the defect is mended");
}
