//! Nested page tables of `page-table-generic`, as the hypervisor Axvisor puts them under `axaddrspace`.

use crate::arena;
use crate::flushes;
use crate::tables::pfn_at;
use ax_memory_addr::{PhysAddr, VirtAddr};
use axaddrspace::{AddrSpaceError, AddrSpaceResult, MappingFlags, NestedPageTableOps, PageSize};
use axvm_types::GuestPhysAddr;
use gpa_model::{Gpa, Level, Rights, Spte};
use page_table_generic as ptg;

/// Gets pages of tables from the arena.
#[derive(Clone, Copy)]
pub(crate) struct Frames;

impl ptg::FrameAllocator for Frames {
    fn alloc_frame(&self) -> Option<PhysAddr> {
        self.alloc_frames(1, 0)
    }

    fn dealloc_frame(&self, frame: PhysAddr) {
        arena::free(frame.as_usize() as u64);
    }

    fn phys_to_virt(&self, paddr: PhysAddr) -> *mut u8 {
        arena::pointer(paddr.as_usize() as u64)
    }

    fn alloc_frames(&self, frames: usize, _align: usize) -> Option<PhysAddr> {
        Some(PhysAddr::from_usize(arena::alloc(frames) as usize))
    }
}

/// Four levels of 512 entries, with leaves up to level `LEAF`: 1 for 4 KiB, 2 for 2 MiB, 3 for 1 GiB.
#[derive(Clone, Copy)]
struct Ept<const LEAF: usize>;

impl<const LEAF: usize> ptg::TableMeta for Ept<LEAF> {
    type P = Entry;

    const PAGE_SIZE: usize = ax_memory_addr::PAGE_SIZE_4K;
    const LEVEL_BITS: &[usize] = &[9, 9, 9, 9];
    const MAX_BLOCK_LEVEL: usize = LEAF;
    const STRICT_ADDRESS_WIDTH: bool = true;

    fn flush(vaddr: Option<VirtAddr>) {
        flushes::ask(vaddr.map(|vaddr| Gpa::new(vaddr.as_usize() as u64)));
    }
}

/// An entry of EPT (SDM vol. 3C, 30.3.2): what it allows in bits 0 to 2, whether it is a large leaf in bit 7.
#[derive(Clone, Copy, Debug)]
struct Entry(u64);

impl Entry {
    const RIGHTS: u64 = Rights::RWX.bits() as u64;
    const LARGE: u64 = 1 << 7;
}

impl ptg::PageTableEntry for Entry {
    type PteConfig = MappingFlags;

    fn new_page(paddr: PhysAddr, config: MappingFlags, is_huge: bool) -> Self {
        let large = if is_huge { Self::LARGE } else { 0 };
        let rights = config.bits() as u64 & Self::RIGHTS;
        if rights == 0 { Self(0) } else { Self(paddr.as_usize() as u64 | large | rights) }
    }

    fn new_table(paddr: PhysAddr) -> Self {
        Self(paddr.as_usize() as u64 | Self::RIGHTS)
    }

    fn paddr(&self, _: bool) -> PhysAddr {
        PhysAddr::from_usize(Gpa::new(self.0).align_down(1).raw() as usize)
    }

    fn config(&self, _: bool) -> MappingFlags {
        MappingFlags::from_bits_truncate((self.0 & Self::RIGHTS) as usize)
    }

    fn present(&self) -> bool {
        self.0 & Self::RIGHTS != 0
    }

    fn huge(&self, is_dir: bool) -> bool {
        is_dir && self.0 & Self::LARGE != 0
    }

    fn unused(&self) -> bool {
        self.0 == 0
    }

    fn clear(&mut self) {
        self.0 = 0;
    }
}

/// The tables under an address space.
pub(crate) struct Nested<const LEAF: usize>(ptg::PageTable<Ept<LEAF>, Frames>);

impl<const LEAF: usize> Nested<LEAF> {
    pub(crate) fn new() -> Self {
        Self(ptg::PageTable::new(Frames).expect("the arena has room"))
    }

    /// What maps `gpa`, with the physical address of its page.
    pub(crate) fn find(&self, gpa: Gpa) -> Option<Spte> {
        let (paddr, flags, size) = self.query(guest(gpa)).ok()?;
        let level = match size {
            PageSize::Size1G => Level::Page1G,
            PageSize::Size2M => Level::Page2M,
            _ => Level::Page4K,
        };
        let spte = Spte::new(pfn_at(paddr.as_usize() as u64), Rights::from_bits(flags.bits() as u8))?;
        Some(spte.at_level(level))
    }
}

/// `gpa` as these crates write it.
pub(crate) fn guest(gpa: Gpa) -> GuestPhysAddr {
    GuestPhysAddr::from_usize(gpa.raw() as usize)
}

/// The same for what is below.
pub(crate) fn virtual_address(gpa: Gpa) -> VirtAddr {
    VirtAddr::from_usize(gpa.raw() as usize)
}

fn virt(gpa: GuestPhysAddr) -> VirtAddr {
    VirtAddr::from_usize(gpa.as_usize())
}

/// The same from any crate's error: which one it is makes no difference here.
fn state<T>(result: ptg::PagingResult<T>) -> AddrSpaceResult<T> {
    result.map_err(|_| AddrSpaceError::MappingState)
}

fn page_size(bytes: usize) -> PageSize {
    let sizes = [PageSize::Size1G, PageSize::Size2M];
    sizes.into_iter().find(|&size| usize::from(size) == bytes).unwrap_or(PageSize::Size4K)
}

impl<const LEAF: usize> NestedPageTableOps for Nested<LEAF> {
    fn root_paddr(&self) -> PhysAddr {
        self.0.root_paddr()
    }

    fn levels(&self) -> usize {
        4
    }

    fn alloc_frame(&self) -> Option<PhysAddr> {
        Some(PhysAddr::from_usize(arena::alloc(1) as usize))
    }

    fn dealloc_frame(&self, paddr: PhysAddr) {
        arena::free(paddr.as_usize() as u64);
    }

    fn phys_to_virt(&self, paddr: PhysAddr) -> VirtAddr {
        VirtAddr::from_mut_ptr_of(arena::pointer(paddr.as_usize() as u64))
    }

    fn map(&mut self, vaddr: GuestPhysAddr, paddr: PhysAddr, size: PageSize, flags: MappingFlags) -> AddrSpaceResult {
        state(self.0.map_page(virt(vaddr), paddr, size.into(), flags))
    }

    fn unmap(&mut self, vaddr: GuestPhysAddr) -> AddrSpaceResult<(PhysAddr, MappingFlags, PageSize)> {
        let (paddr, flags, size) = state(self.0.unmap_page(virt(vaddr)))?;
        Ok((paddr, flags, page_size(size)))
    }

    fn map_linear(
        &mut self,
        vaddr: GuestPhysAddr,
        paddr: PhysAddr,
        size: usize,
        flags: MappingFlags,
        allow_huge: bool,
    ) -> AddrSpaceResult {
        state(self.0.map_linear_pages(virt(vaddr), paddr, size, flags, allow_huge))
    }

    fn unmap_region(&mut self, start: GuestPhysAddr, size: usize) -> AddrSpaceResult {
        state(self.0.unmap(virt(start), size))
    }

    fn remap(&mut self, start: GuestPhysAddr, paddr: PhysAddr, flags: MappingFlags) -> bool {
        let start = GuestPhysAddr::from_usize(Gpa::new(start.as_usize() as u64).align_down(1).raw() as usize);
        let _ = self.unmap(start);
        self.map(start, paddr, PageSize::Size4K, flags).is_ok()
    }

    fn protect_region(&mut self, start: GuestPhysAddr, size: usize, new_flags: MappingFlags) -> bool {
        self.0.protect_region(virt(start), size, new_flags).is_ok()
    }

    fn query(&self, vaddr: GuestPhysAddr) -> AddrSpaceResult<(PhysAddr, MappingFlags, PageSize)> {
        let (paddr, flags, size) = state(self.0.query(virt(vaddr)))?;
        Ok((paddr, flags, page_size(size)))
    }
}
