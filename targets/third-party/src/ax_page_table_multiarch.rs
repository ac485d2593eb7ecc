//! `ax-page-table-multiarch`: nested page tables in the format of long mode.

use crate::arena;
use crate::flushes;
use crate::tables::{Refused, Tables, address, bytes, pfn_at};
use ax_page_table_entry::x86_64::X64PTE;
use ax_page_table_multiarch::{MappingFlags, PageSize, PageTable64, PagingHandler, PagingMetaData};
use ax_page_table_multiarch_addr::{PhysAddr, VirtAddr};
use gpa_model::{Gpa, Level, Pfn, Rights, Spte};

/// The crate's own tables of long mode would flush the TLB of the processor that this runs on.
struct Npt;

impl PagingMetaData for Npt {
    const LEVELS: usize = 4;
    const PA_MAX_BITS: usize = 52;
    const VA_MAX_BITS: usize = 48;

    type VirtAddr = VirtAddr;

    fn vaddr_is_valid(_: usize) -> bool {
        true
    }

    fn flush_tlb(vaddr: Option<VirtAddr>) {
        flushes::ask(vaddr.map(|vaddr| Gpa::new(vaddr.as_usize() as u64)));
    }
}

/// Gets pages of tables from the arena.
struct Frames;

impl PagingHandler for Frames {
    fn alloc_frames(num: usize, _align: usize) -> Option<PhysAddr> {
        Some(PhysAddr::from_usize(arena::alloc(num) as usize))
    }

    fn dealloc_frames(paddr: PhysAddr, num: usize) {
        let first = Gpa::new(paddr.as_usize() as u64);
        (0..num as u64).for_each(|page| arena::free(first.add_pages(page).raw()));
    }

    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
        VirtAddr::from_mut_ptr_of(arena::pointer(paddr.as_usize() as u64))
    }
}

/// Nested page tables.
pub(crate) struct AxPageTableMultiarch(PageTable64<Npt, X64PTE, Frames>);

fn virt(gpa: Gpa) -> VirtAddr {
    VirtAddr::from_usize(gpa.raw() as usize)
}

/// Whoever can write can read.
fn flags(rights: Rights) -> MappingFlags {
    MappingFlags::from_bits_truncate(rights.bits().into())
}

impl Tables for AxPageTableMultiarch {
    // A region has to be mapped before it is unmapped.
    const HOLES: bool = false;
    const FLUSHES: bool = true;

    fn new() -> Self {
        Self(PageTable64::try_new().map_err(drop).expect("the arena has room"))
    }

    fn map(&mut self, gpa: Gpa, pfn: Pfn, pages: u64, rights: Rights) -> Result<(), Refused> {
        let physical = |at: VirtAddr| PhysAddr::from_usize(at.as_usize() - gpa.raw() as usize + address(pfn) as usize);
        Ok(self.0.cursor().map_region(virt(gpa), physical, bytes(pages) as usize, flags(rights), true)?)
    }

    fn unmap(&mut self, gpa: Gpa, pages: u64) -> Result<(), Refused> {
        Ok(self.0.cursor().unmap_region(virt(gpa), bytes(pages) as usize)?)
    }

    fn protect(&mut self, gpa: Gpa, pages: u64, rights: Rights) -> Result<(), Refused> {
        Ok(self.0.cursor().protect_region(virt(gpa), bytes(pages) as usize, flags(rights))?)
    }

    fn find(&self, gpa: Gpa) -> Option<Spte> {
        let (paddr, flags, size) = self.0.query(virt(gpa)).ok()?;
        let level = match size {
            PageSize::Size1G => Level::Page1G,
            PageSize::Size2M => Level::Page2M,
            _ => Level::Page4K,
        };
        let spte = Spte::new(pfn_at(paddr.as_usize() as u64), Rights::from_bits(flags.bits() as u8))?;
        Some(spte.at_level(level))
    }
}
