//! `axaddrspace` with linear mappings: a memslot is mapped to memory of the host as a whole.

use crate::nested::{Nested, guest};
use crate::tables::{Refused, Tables, address, bytes};
use ax_memory_addr::PhysAddr;
use axaddrspace::{AddrSpace, MappingFlags};
use gpa_model::{Gpa, Pfn, Rights, Spte};

/// An address space over all that four levels translate, with leaves up to level `LEAF`.
pub(crate) struct AxAddrSpaceLinear<const LEAF: usize>(AddrSpace<Nested<LEAF>>);

impl<const LEAF: usize> Tables for AxAddrSpaceLinear<LEAF> {
    const HOLES: bool = true;
    const FLUSHES: bool = true;

    fn new() -> Self {
        let space = AddrSpace::new_empty(Nested::new(), guest(Gpa::new(0)), 1 << Self::GPA_BITS);
        Self(space.expect("the range is legal"))
    }

    fn map(&mut self, gpa: Gpa, pfn: Pfn, pages: u64, rights: Rights) -> Result<(), Refused> {
        let flags = MappingFlags::from_bits_truncate(rights.bits().into());
        let paddr = PhysAddr::from_usize(address(pfn) as usize);
        Ok(self.0.map_linear(guest(gpa), paddr, bytes(pages) as usize, flags)?)
    }

    fn unmap(&mut self, gpa: Gpa, pages: u64) -> Result<(), Refused> {
        Ok(self.0.unmap(guest(gpa), bytes(pages) as usize)?)
    }

    fn find(&self, gpa: Gpa) -> Option<Spte> {
        self.0.page_table().find(gpa)
    }
}
