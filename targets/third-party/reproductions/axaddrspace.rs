//! `axaddrspace` 0.6.0, over page tables that are a map.

use ax_memory_addr::{PhysAddr, VirtAddr};
use axaddrspace::{AddrSpace, AddrSpaceError, AddrSpaceResult, MappingFlags, NestedPageTableOps, PageSize};
use axvm_types::GuestPhysAddr;
use std::cell::Cell;
use std::collections::BTreeMap;

const PAGE: usize = 0x1000;

type Mapping = (PhysAddr, MappingFlags, PageSize);

/// What maps each page, where the next frame is, and how many were allocated and not released.
#[derive(Default)]
struct Map {
    pages: BTreeMap<GuestPhysAddr, Mapping>,
    next: Cell<usize>,
    held: Cell<usize>,
}

impl NestedPageTableOps for Map {
    fn alloc_frame(&self) -> Option<PhysAddr> {
        self.held.set(self.held.get() + 1);
        Some(PhysAddr::from_usize(self.next.replace(self.next.get() + PAGE)))
    }

    fn dealloc_frame(&self, _: PhysAddr) {
        self.held.set(self.held.get() - 1);
    }

    fn map(&mut self, at: GuestPhysAddr, to: PhysAddr, size: PageSize, flags: MappingFlags) -> AddrSpaceResult {
        self.pages.insert(at, (to, flags, size));
        Ok(())
    }

    fn unmap(&mut self, at: GuestPhysAddr) -> AddrSpaceResult<Mapping> {
        self.pages.remove(&at).ok_or(AddrSpaceError::Unmapped { address: at })
    }

    fn remap(&mut self, at: GuestPhysAddr, to: PhysAddr, flags: MappingFlags) -> bool {
        self.map(at, to, PageSize::Size4K, flags).is_ok()
    }

    fn query(&self, at: GuestPhysAddr) -> AddrSpaceResult<Mapping> {
        self.pages.get(&at).copied().ok_or(AddrSpaceError::Unmapped { address: at })
    }

    fn root_paddr(&self) -> PhysAddr {
        PhysAddr::from_usize(0)
    }

    fn levels(&self) -> usize {
        1
    }

    fn phys_to_virt(&self, _: PhysAddr) -> VirtAddr {
        unreachable!("nothing is accessed")
    }

    fn map_linear(&mut self, _: GuestPhysAddr, _: PhysAddr, _: usize, _: MappingFlags, _: bool) -> AddrSpaceResult {
        unreachable!("nothing is linear")
    }

    fn unmap_region(&mut self, _: GuestPhysAddr, _: usize) -> AddrSpaceResult {
        unreachable!("nothing is linear")
    }

    fn protect_region(&mut self, _: GuestPhysAddr, _: usize, _: MappingFlags) -> bool {
        unreachable!("nothing is protected")
    }
}

/// Two vCPUs fault on the same page before either is served. The first may have written to its page when the second is served.
#[test]
fn the_second_of_two_faults_on_a_page_replaces_it_and_leaks_the_first() {
    let at = GuestPhysAddr::from_usize(PAGE);
    let mut space = AddrSpace::new_empty(Map::default(), at, PAGE).unwrap();
    space.map_alloc(at, PAGE, MappingFlags::READ | MappingFlags::WRITE, false).unwrap();
    assert!(space.handle_page_fault(at, MappingFlags::WRITE));
    let first = space.translate(at).unwrap();
    assert!(space.handle_page_fault(at, MappingFlags::WRITE));
    // Right would be: the same page.
    assert_ne!(space.translate(at).unwrap(), first, "the page stays: the defect is mended");
    space.unmap(at, PAGE).unwrap();
    // Right would be: none.
    assert_eq!(space.page_table().held.get(), 1, "no frame leaks: the defect is mended");
}
