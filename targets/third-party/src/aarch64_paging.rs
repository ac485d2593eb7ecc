//! `aarch64-paging`: a stage 2 that is in use while it changes, which is why it has no blocks that would have to be taken apart; or
//! one that is not, as before a guest's first run or while its vCPUs are stopped.
#![expect(unsafe_code, reason = "traits of the crate have unsafe methods")]

use crate::arena;
use crate::flushes;
use crate::tables::{Refused, Tables, address, pfn_at};
use aarch64_paging::Mapping;
use aarch64_paging::descriptor::{PhysicalAddress, Stage2Attributes, UpdatableDescriptor, VirtualAddress};
use aarch64_paging::paging::{Constraints, MemoryRegion, PageTable, Translation, TranslationRegime};
use gpa_model::{Gpa, Level, Pfn, Rights, Spte};
use std::ptr::NonNull;

/// Gets pages of tables from the arena.
struct Frames;

impl Translation<Stage2Attributes> for Frames {
    fn allocate_table(&mut self) -> (NonNull<PageTable<Stage2Attributes>>, PhysicalAddress) {
        let pa = PhysicalAddress(arena::alloc(1) as usize);
        (self.physical_to_virtual(pa), pa)
    }

    unsafe fn deallocate_table(&mut self, page_table: NonNull<PageTable<Stage2Attributes>>) {
        arena::free_at(page_table.as_ptr().cast());
    }

    fn physical_to_virtual(&self, pa: PhysicalAddress) -> NonNull<PageTable<Stage2Attributes>> {
        NonNull::new(arena::pointer(pa.0 as u64).cast()).expect("no page is at null")
    }
}

/// The crate's own stage 2 would flush nothing here, and tell of nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Watched;

impl TranslationRegime for Watched {
    type Attributes = Stage2Attributes;
    type Asid = ();
    type VaRange = ();

    fn invalidate_va(va: VirtualAddress) {
        flushes::ask(Some(Gpa::new(va.0 as u64)));
    }

    unsafe fn activate(_: PhysicalAddress, (): (), (): ()) -> usize {
        0
    }

    unsafe fn deactivate(_: usize, (): (), (): ()) {}
}

/// A stage 2 with a root of level 0, in use if `LIVE`.
pub(crate) struct Aarch64Paging<const LIVE: bool>(Mapping<Frames, Watched>);

impl<const LIVE: bool> Aarch64Paging<LIVE> {
    const CONSTRAINTS: Constraints = if LIVE { Constraints::NO_BLOCK_MAPPINGS } else { Constraints::empty() };
}

/// A mapping in use may not be dropped.
impl<const LIVE: bool> Drop for Aarch64Paging<LIVE> {
    fn drop(&mut self) {
        if LIVE {
            // SAFETY: no processor translates by it.
            unsafe { self.0.deactivate(0) };
        }
    }
}

fn region(gpa: Gpa, pages: u64) -> MemoryRegion {
    MemoryRegion::new(gpa.raw() as usize, gpa.add_pages(pages).raw() as usize)
}

/// What a guest can write it can read.
fn attributes(rights: Rights) -> Stage2Attributes {
    let memory = Stage2Attributes::MEMATTR_NORMAL_INNER_WB | Stage2Attributes::MEMATTR_NORMAL_OUTER_WB;
    let always = memory | Stage2Attributes::SH_INNER | Stage2Attributes::ACCESS_FLAG | Stage2Attributes::VALID;
    let write = if rights.contains(Rights::W) { Stage2Attributes::S2AP_ACCESS_WO } else { Stage2Attributes::empty() };
    let execute = if rights.contains(Rights::X) { Stage2Attributes::empty() } else { Stage2Attributes::XN };
    always | Stage2Attributes::S2AP_ACCESS_RO | write | execute
}

fn rights(attributes: Stage2Attributes) -> Rights {
    let given = [
        (attributes.contains(Stage2Attributes::S2AP_ACCESS_RO), Rights::R),
        (attributes.contains(Stage2Attributes::S2AP_ACCESS_WO), Rights::W),
        (!attributes.contains(Stage2Attributes::XN), Rights::X),
    ];
    given.into_iter().filter(|(is, _)| *is).fold(Rights::NONE, |all, (_, right)| all.union(right))
}

impl<const LIVE: bool> Tables for Aarch64Paging<LIVE> {
    const HOLES: bool = true;
    const FLUSHES: bool = LIVE;

    fn new() -> Self {
        let mapping = Mapping::new(Frames, 0, Watched);
        if LIVE {
            // SAFETY: no processor translates by it.
            unsafe { mapping.activate() };
        }
        Self(mapping)
    }

    fn map(&mut self, gpa: Gpa, pfn: Pfn, pages: u64, rights: Rights) -> Result<(), Refused> {
        let pa = PhysicalAddress(address(pfn) as usize);
        Ok(self.0.map_range(&region(gpa, pages), pa, attributes(rights), Self::CONSTRAINTS)?)
    }

    /// The physical address is ignored where nothing is made valid. The crate's own `IdMap` gives that of the range.
    fn unmap(&mut self, gpa: Gpa, pages: u64) -> Result<(), Refused> {
        let nowhere = PhysicalAddress(if LIVE { gpa.raw() as usize } else { 0 });
        let nothing = Stage2Attributes::empty();
        Ok(self.0.map_range(&region(gpa, pages), nowhere, nothing, Self::CONSTRAINTS)?)
    }

    fn protect(&mut self, gpa: Gpa, pages: u64, rights: Rights) -> Result<(), Refused> {
        let access = Stage2Attributes::S2AP_ACCESS_RW | Stage2Attributes::XN;
        let set = attributes(rights) & access;
        let change = |_: &MemoryRegion, descriptor: &mut UpdatableDescriptor<'_, Stage2Attributes>| match descriptor
            .flags()
            .contains(Stage2Attributes::VALID)
        {
            true => descriptor.modify_flags(set, access & !set),
            false => Ok(()),
        };
        Ok(self.0.modify_range(&region(gpa, pages), &change)?)
    }

    fn compact(&mut self) {
        self.0.compact_subtables();
    }

    fn find(&self, gpa: Gpa) -> Option<Spte> {
        let mut found = None;
        let walked = self.0.walk_range(&region(gpa, 1), &mut |_, descriptor, level| {
            if descriptor.is_valid() {
                let level = [Level::Page1G, Level::Page1G, Level::Page2M, Level::Page4K][level];
                let first = pfn_at(descriptor.output_address().0 as u64);
                let inside = gpa.page() - gpa.align_down(level.pages()).page();
                found = Spte::new(first.add(inside), rights(descriptor.flags())).map(|spte| spte.at_level(level));
            }
            Ok(())
        });
        walked.ok().and(found)
    }
}
