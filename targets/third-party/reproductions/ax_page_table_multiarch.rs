//! `ax-page-table-multiarch` 0.8.15, by itself.

use ax_page_table_entry::x86_64::X64PTE;
use ax_page_table_multiarch::{MappingFlags, PageTable64, PagingError, PagingHandler, PagingMetaData};
use ax_page_table_multiarch_addr::{PhysAddr, VirtAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};

const PAGE: usize = 0x1000;
const BLOCK: usize = 0x20_0000;
const READ: MappingFlags = MappingFlags::READ;
const WRITE: MappingFlags = MappingFlags::READ.union(MappingFlags::WRITE);

struct LongMode;

impl PagingMetaData for LongMode {
    const LEVELS: usize = 4;
    const PA_MAX_BITS: usize = 52;
    const VA_MAX_BITS: usize = 48;

    type VirtAddr = VirtAddr;

    fn flush_tlb(_: Option<VirtAddr>) {}
}

/// Tables are pages of the process, at the addresses they have there.
struct Heap;

impl PagingHandler for Heap {
    fn alloc_frames(_: usize, _: usize) -> Option<PhysAddr> {
        #[repr(align(4096))]
        struct Page([u8; PAGE]);
        let page: &'static mut Page = Box::leak(Box::new(Page([0; PAGE])));
        Some(PhysAddr::from_usize(page.0.as_mut_ptr().expose_provenance()))
    }

    fn dealloc_frames(_: PhysAddr, _: usize) {}

    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
        VirtAddr::from_usize(paddr.as_usize())
    }
}

struct Table(PageTable64<LongMode, X64PTE, Heap>);

impl Table {
    fn new() -> Self {
        Self(PageTable64::try_new().unwrap_or_else(|e| panic!("{e:?}")))
    }

    fn map(&mut self, start: usize, size: usize) -> Result<(), PagingError> {
        self.0.cursor().map_region(start.into(), |at| PhysAddr::from_usize(at.as_usize()), size, WRITE, true)
    }

    fn flags(&self, at: usize) -> Option<MappingFlags> {
        self.0.query(at.into()).ok().map(|(_, flags, _)| flags)
    }
}

#[test]
fn unmap_region_of_a_part_of_a_block_takes_the_whole_block_and_then_panics() {
    for (start, size) in [(BLOCK, PAGE), (BLOCK + PAGE, BLOCK)] {
        let mut table = Table::new();
        table.map(BLOCK, 2 * BLOCK).unwrap();
        let panicked = catch_unwind(AssertUnwindSafe(|| table.0.cursor().unmap_region(start.into(), size)));
        // Right would be: the block is taken apart, or the call is refused.
        assert!(panicked.is_err(), "no panic: the defect is mended");
        assert_eq!(
            table.flags(BLOCK + BLOCK / 2),
            None,
            "a page before the panic is still mapped: the defect is mended"
        );
    }
}

#[test]
fn protect_region_of_a_part_of_a_block_protects_the_whole_block_and_then_panics() {
    let mut table = Table::new();
    table.map(BLOCK, BLOCK).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| table.0.cursor().protect_region(BLOCK.into(), PAGE, READ)));
    // Right would be: the block is taken apart, or the call is refused.
    assert!(panicked.is_err(), "no panic: the defect is mended");
    assert_eq!(
        table.flags(BLOCK + PAGE),
        Some(READ),
        "a page outside the range keeps its rights: the defect is mended"
    );
}

/// A table of pages stays when the last of them is unmapped, and a block cannot take its place.
#[test]
fn map_region_says_already_mapped_where_nothing_is() {
    let mut table = Table::new();
    table.map(2 * BLOCK, PAGE).unwrap();
    table.0.cursor().unmap_region((2 * BLOCK).into(), PAGE).unwrap();
    // Right would be: Ok.
    assert_eq!(table.map(BLOCK, 2 * BLOCK), Err(PagingError::AlreadyMapped), "it is mapped: the defect is mended");
    assert_eq!(table.flags(BLOCK), Some(WRITE), "nothing is left of what failed: that part is mended");
}
