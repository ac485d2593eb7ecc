//! The page tables of the hypervisor Hyperlight, in `hyperlight-common`. They have leaves of 4 KiB alone.
#![expect(unsafe_code, reason = "the crate leaves it to its user that addresses lead to tables")]

use crate::arena;
use crate::tables::{Refused, Tables, address, bytes, pfn_at};
use gpa_model::{Gpa, Pfn, Rights, Spte};
use hyperlight_common::vmem::{
    self, BasicMapping, Mapping, MappingKind, MayNotMoveTable, PageTableEntry, PhysAddr, TableOps, TableReadOps, Void,
};

/// Four levels in the format of long mode.
pub(crate) struct Hyperlight {
    root: u64,
}

fn entry(address: u64) -> *mut PageTableEntry {
    let page = Gpa::new(address).align_down(1).raw();
    arena::pointer(page).wrapping_add((address - page) as usize).cast()
}

impl TableReadOps for Hyperlight {
    type TableAddr = u64;

    fn entry_addr(addr: u64, entry_offset: u64) -> u64 {
        addr + entry_offset
    }

    unsafe fn read_entry(&self, addr: u64) -> PageTableEntry {
        // SAFETY: the entry lies in a page of tables that is there.
        unsafe { entry(addr).read() }
    }

    fn to_phys(addr: u64) -> PhysAddr {
        addr
    }

    fn from_phys(addr: PhysAddr) -> u64 {
        addr
    }

    fn root_table(&self) -> u64 {
        self.root
    }
}

impl TableOps for Hyperlight {
    type TableMovability = MayNotMoveTable;

    unsafe fn alloc_table(&self) -> u64 {
        arena::alloc(1)
    }

    unsafe fn write_entry(&self, addr: u64, value: PageTableEntry) -> Option<Void> {
        // SAFETY: the entry lies in a page of tables that is there.
        unsafe { entry(addr).write(value) };
        None
    }

    unsafe fn update_root(&self, new_root: Void) {
        match new_root {}
    }
}

impl AsRef<Hyperlight> for Hyperlight {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// An address of long mode: bit 47 is its sign.
fn virt(gpa: Gpa) -> u64 {
    let unused = u64::BITS - u32::from(Hyperlight::GPA_BITS);
    ((gpa.raw() << unused) as i64 >> unused) as u64
}

fn kind(rights: Rights) -> MappingKind {
    let [readable, writable, executable] = [Rights::R, Rights::W, Rights::X].map(|right| rights.contains(right));
    MappingKind::Basic(BasicMapping { readable, writable, executable })
}

impl Tables for Hyperlight {
    const HOLES: bool = true;
    const FLUSHES: bool = false;

    fn new() -> Self {
        Self { root: arena::alloc(1) }
    }

    fn map(&mut self, gpa: Gpa, pfn: Pfn, pages: u64, rights: Rights) -> Result<(), Refused> {
        let (virt_base, phys_base, kind) = (virt(gpa), address(pfn), kind(rights));
        // SAFETY: nothing else changes these tables, and they translate for no processor.
        unsafe { vmem::map(self, Mapping { phys_base, virt_base, len: bytes(pages), kind }) };
        Ok(())
    }

    fn unmap(&mut self, gpa: Gpa, pages: u64) -> Result<(), Refused> {
        let kind = MappingKind::Unmapped;
        // SAFETY: as for `map`.
        unsafe { vmem::map(self, Mapping { phys_base: 0, virt_base: virt(gpa), len: bytes(pages), kind }) };
        Ok(())
    }

    fn protect(&mut self, gpa: Gpa, pages: u64, rights: Rights) -> Result<(), Refused> {
        let protect = |_, mapping: Mapping| match mapping.kind {
            MappingKind::Unmapped => MappingKind::Unmapped,
            _ => kind(rights),
        };
        // SAFETY: as for `map`.
        unsafe { vmem::modify_mapping(self, virt(gpa), bytes(pages), protect) };
        Ok(())
    }

    fn find(&self, gpa: Gpa) -> Option<Spte> {
        // SAFETY: the tables are there.
        let mapping = unsafe { vmem::virt_to_phys::<Self>(self, virt(gpa), bytes(1)).next() }?;
        let MappingKind::Basic(basic) = mapping.kind else { return None };
        let given = [(basic.readable, Rights::R), (basic.writable, Rights::W), (basic.executable, Rights::X)];
        let rights = given.into_iter().filter(|(is, _)| *is).fold(Rights::NONE, |all, (_, right)| all.union(right));
        Spte::new(pfn_at(mapping.phys_base), rights)
    }
}
