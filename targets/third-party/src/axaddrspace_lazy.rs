//! `axaddrspace` with allocated mappings: a memslot is memory that the crate allocates page by page, at the first access.

use crate::lazy::LazyTables;
use crate::nested::{Nested, guest};
use crate::tables::{Refused, bytes};
use axaddrspace::{AddrSpace, MappingFlags};
use gpa_model::{Access, Gpa, Rights, Spte};

/// An address space over all that four levels translate.
pub(crate) struct AxAddrSpaceLazy(AddrSpace<Nested<1>>);

fn flags(rights: Rights) -> MappingFlags {
    MappingFlags::from_bits_truncate(rights.bits().into())
}

impl LazyTables for AxAddrSpaceLazy {
    fn new() -> Self {
        let space = AddrSpace::new_empty(Nested::new(), guest(Gpa::new(0)), 1 << 48);
        Self(space.expect("the range is legal"))
    }

    fn reserve(&mut self, gpa: Gpa, pages: u64, rights: Rights) -> Result<(), Refused> {
        Ok(self.0.map_alloc(guest(gpa), bytes(pages) as usize, flags(rights), false)?)
    }

    fn release(&mut self, gpa: Gpa, pages: u64) -> Result<(), Refused> {
        Ok(self.0.unmap(guest(gpa), bytes(pages) as usize)?)
    }

    fn fault(&mut self, gpa: Gpa, access: Access) -> bool {
        self.0.handle_page_fault(guest(gpa), flags(Rights::needed(access)))
    }

    fn find(&self, gpa: Gpa) -> Option<Spte> {
        self.0.page_table().find(gpa)
    }
}
