//! `page-table-generic` as a RISC-V hypervisor uses it: a G-stage in mode Sv39x4, whose root is four pages.

use crate::flushes;
use crate::nested::{Frames, virtual_address};
use crate::tables::{Refused, Tables, address, bytes, pfn_at};
use ax_memory_addr::{PhysAddr, VirtAddr};
use gpa_model::{Gpa, Level, Pfn, Rights, Spte};
use page_table_generic::{PageTable, PageTableEntry, TableMeta};

/// Three levels, the highest of 2048 entries, with leaves of 2 MiB and 1 GiB.
#[derive(Clone, Copy)]
struct Sv39x4;

impl TableMeta for Sv39x4 {
    type P = Entry;

    const PAGE_SIZE: usize = ax_memory_addr::PAGE_SIZE_4K;
    const LEVEL_BITS: &[usize] = &[11, 9, 9];
    const MAX_BLOCK_LEVEL: usize = 3;
    const STRICT_ADDRESS_WIDTH: bool = true;

    fn flush(vaddr: Option<VirtAddr>) {
        flushes::ask(vaddr.map(|vaddr| Gpa::new(vaddr.as_usize() as u64)));
    }
}

/// An entry (RISC-V Privileged Architecture, 11.3.2): valid in bit 0, the rights from bit 1, the page from bit 10. One without
/// rights leads to a table.
#[derive(Clone, Copy, Debug)]
struct Entry(u64);

impl Entry {
    const VALID: u64 = 1;
    const RIGHTS_SHIFT: u32 = 1;
    const PPN_SHIFT: u32 = 10;

    const fn new(paddr: PhysAddr, rights: Rights) -> Self {
        let page = Gpa::new(paddr.as_usize() as u64).page();
        Self(page << Self::PPN_SHIFT | (rights.bits() as u64) << Self::RIGHTS_SHIFT | Self::VALID)
    }
}

impl PageTableEntry for Entry {
    type PteConfig = Rights;

    fn new_page(paddr: PhysAddr, rights: Rights, _: bool) -> Self {
        Self::new(paddr, rights)
    }

    fn new_table(paddr: PhysAddr) -> Self {
        Self::new(paddr, Rights::NONE)
    }

    fn paddr(&self, _: bool) -> PhysAddr {
        PhysAddr::from_usize(bytes(self.0 >> Self::PPN_SHIFT) as usize)
    }

    fn config(&self, _: bool) -> Rights {
        Rights::from_bits((self.0 >> Self::RIGHTS_SHIFT) as u8)
    }

    fn present(&self) -> bool {
        self.0 & Self::VALID != 0
    }

    fn huge(&self, is_dir: bool) -> bool {
        is_dir && !self.config(is_dir).is_none()
    }

    fn unused(&self) -> bool {
        self.0 == 0
    }

    fn clear(&mut self) {
        self.0 = 0;
    }
}

/// A G-stage.
pub(crate) struct PageTableGeneric(PageTable<Sv39x4, Frames>);

impl Tables for PageTableGeneric {
    const GPA_BITS: u8 = 41;
    const HOLES: bool = true;
    const FLUSHES: bool = true;

    fn new() -> Self {
        Self(PageTable::new(Frames).expect("the arena has room"))
    }

    fn map(&mut self, gpa: Gpa, pfn: Pfn, pages: u64, rights: Rights) -> Result<(), Refused> {
        let paddr = PhysAddr::from_usize(address(pfn) as usize);
        Ok(self.0.map_linear_pages(virtual_address(gpa), paddr, bytes(pages) as usize, rights, true)?)
    }

    fn unmap(&mut self, gpa: Gpa, pages: u64) -> Result<(), Refused> {
        Ok(self.0.unmap(virtual_address(gpa), bytes(pages) as usize)?)
    }

    fn protect(&mut self, gpa: Gpa, pages: u64, rights: Rights) -> Result<(), Refused> {
        Ok(self.0.protect_region(virtual_address(gpa), bytes(pages) as usize, rights)?)
    }

    fn find(&self, gpa: Gpa) -> Option<Spte> {
        let (paddr, entry, level) = self.0.translate_with_level(virtual_address(gpa)).ok()?;
        let level = [Level::Page4K, Level::Page2M, Level::Page1G][level - 1];
        Some(Spte::new(pfn_at(paddr.as_usize() as u64), entry.config(false))?.at_level(level))
    }
}
