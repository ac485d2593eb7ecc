//! The mappers of `x86_64` as nested page tables.
//!
//! These mappers know leaves, not ranges: which leaves a range is made of, and that one is taken apart where a range ends inside it, is
//! the hypervisor's part.
#![expect(unsafe_code, reason = "the crate's mappers leave it to their user that what is mapped is free")]

use crate::arena;
use crate::flushes;
use crate::tables::{Refused, Tables, address, pfn_at};
use gpa_model::{Gpa, Level, Pfn, Rights, Span, Spte};
use std::fmt::Debug;
use x86_64::structures::paging::mapper::{CleanUp, MappedFrame, MapperFlush, PageTableFrameMapping, TranslateResult};
use x86_64::structures::paging::{
    FrameAllocator, FrameDeallocator, MappedPageTable, Mapper, Page, PageSize, PageTable, PageTableFlags, PhysFrame,
    Size1GiB, Size2MiB, Size4KiB, Translate,
};
use x86_64::{PhysAddr, VirtAddr};

/// Gets pages of tables from the arena.
struct Frames;

// SAFETY: no page of the arena is handed out twice.
unsafe impl FrameAllocator<Size4KiB> for Frames {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        PhysFrame::from_start_address(PhysAddr::new(arena::alloc(1))).ok()
    }
}

impl FrameDeallocator<Size4KiB> for Frames {
    unsafe fn deallocate_frame(&mut self, frame: PhysFrame) {
        arena::free(frame.start_address().as_u64());
    }
}

// SAFETY: a page of the arena is there until the arena ends, after the tables.
unsafe impl PageTableFrameMapping for Frames {
    fn frame_to_pointer(&self, frame: PhysFrame) -> *mut PageTable {
        arena::pointer(frame.start_address().as_u64()).cast()
    }
}

/// Four levels, with leaves of 2 MiB and 1 GiB.
pub(crate) struct X86_64(MappedPageTable<'static, Frames>);

fn flags(rights: Rights) -> PageTableFlags {
    let write = if rights.contains(Rights::W) { PageTableFlags::WRITABLE } else { PageTableFlags::empty() };
    let execute = if rights.contains(Rights::X) { PageTableFlags::empty() } else { PageTableFlags::NO_EXECUTE };
    PageTableFlags::PRESENT | PageTableFlags::USER_ACCESSIBLE | write | execute
}

fn rights(flags: PageTableFlags) -> Rights {
    let write = if flags.contains(PageTableFlags::WRITABLE) { Rights::W } else { Rights::NONE };
    let execute = if flags.contains(PageTableFlags::NO_EXECUTE) { Rights::NONE } else { Rights::X };
    Rights::R.union(write).union(execute)
}

fn virt(gpa: Gpa) -> VirtAddr {
    VirtAddr::new_truncate(gpa.raw())
}

fn page<S: PageSize>(gpa: Gpa) -> Page<S> {
    Page::containing_address(virt(gpa))
}

/// What the crate says has to be flushed: it is, though not on the processor that this runs on.
fn flush<S: PageSize>(asked: MapperFlush<S>) {
    flushes::ask(Some(Gpa::new(asked.page().start_address().as_u64()).below(X86_64::GPA_BITS)));
    asked.ignore();
}

impl X86_64 {
    fn map_leaf<S: PageSize + Debug>(&mut self, gpa: Gpa, pfn: Pfn, rights: Rights) -> Result<(), Refused>
    where
        MappedPageTable<'static, Frames>: Mapper<S>,
    {
        let frame = PhysFrame::<S>::containing_address(PhysAddr::new(address(pfn)));
        // SAFETY: these tables translate for no processor.
        flush(unsafe { self.0.map_to(page(gpa), frame, flags(rights), &mut Frames)? });
        Ok(())
    }

    fn unmap_leaf(&mut self, gpa: Gpa, level: Level) -> Result<(), Refused> {
        match level {
            Level::Page4K => flush(self.0.unmap(page::<Size4KiB>(gpa))?.1),
            Level::Page2M => flush(self.0.unmap(page::<Size2MiB>(gpa))?.1),
            Level::Page1G => flush(self.0.unmap(page::<Size1GiB>(gpa))?.1),
        }
        Ok(())
    }

    fn protect_leaf(&mut self, gpa: Gpa, level: Level, rights: Rights) -> Result<(), Refused> {
        let flags = flags(rights);
        // SAFETY: these tables translate for no processor.
        unsafe {
            match level {
                Level::Page4K => flush(self.0.update_flags(page::<Size4KiB>(gpa), flags)?),
                Level::Page2M => flush(self.0.update_flags(page::<Size2MiB>(gpa), flags)?),
                Level::Page1G => flush(self.0.update_flags(page::<Size1GiB>(gpa), flags)?),
            }
        }
        Ok(())
    }

    /// Take the leaf apart that `gpa` lies in, if it begins before.
    fn split_at(&mut self, gpa: Gpa) -> Result<(), Refused> {
        let Some(spte) = self.find(gpa) else { return Ok(()) };
        let leaf = Span::of_leaf(gpa, spte.level());
        let inside = gpa.page() - leaf.start.page();
        if inside == 0 {
            return Ok(());
        }
        let first = spte.pfn().before(inside);
        self.unmap_leaf(leaf.start, spte.level())?;
        self.map(leaf.start, first, inside, spte.rights())?;
        self.map(gpa, spte.pfn(), leaf.pages - inside, spte.rights())
    }

    /// Change each leaf of a range, after those at its ends are taken apart.
    fn each_leaf(
        &mut self,
        gpa: Gpa,
        pages: u64,
        change: impl Fn(&mut Self, Gpa, Level) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        self.split_at(gpa)?;
        self.split_at(gpa.add_pages(pages))?;
        let mut done = 0;
        while done < pages {
            let at = gpa.add_pages(done);
            let level = self.find(at).map(Spte::level);
            if let Some(level) = level {
                change(self, at, level)?;
            }
            done += level.unwrap_or_default().pages();
        }
        Ok(())
    }
}

impl Tables for X86_64 {
    const HOLES: bool = true;
    const FLUSHES: bool = true;

    fn new() -> Self {
        let root = arena::pointer(arena::alloc(1)).cast::<PageTable>();
        // SAFETY: the root is a zeroed page of its own, which is there as long as the arena is.
        Self(unsafe { MappedPageTable::new(&mut *root, Frames) })
    }

    fn map(&mut self, gpa: Gpa, pfn: Pfn, pages: u64, rights: Rights) -> Result<(), Refused> {
        let mut done = 0;
        while done < pages {
            let (at, to) = (gpa.add_pages(done), pfn.add(done));
            let fits = |level: &Level| {
                let aligned = at.align_down(level.pages()) == at && u64::from(to.raw()) % level.pages() == 0;
                aligned && level.pages() <= pages - done
            };
            let level = Level::LARGE.into_iter().find(fits).unwrap_or_default();
            match level {
                Level::Page4K => self.map_leaf::<Size4KiB>(at, to, rights)?,
                Level::Page2M => self.map_leaf::<Size2MiB>(at, to, rights)?,
                Level::Page1G => self.map_leaf::<Size1GiB>(at, to, rights)?,
            }
            done += level.pages();
        }
        Ok(())
    }

    fn unmap(&mut self, gpa: Gpa, pages: u64) -> Result<(), Refused> {
        self.each_leaf(gpa, pages, Self::unmap_leaf)?;
        let range = Page::range_inclusive(page(gpa), page(gpa.add_pages(pages - 1)));
        // SAFETY: no table is shared, and none is in use by a processor.
        unsafe { self.0.clean_up_addr_range(range, &mut Frames) };
        Ok(())
    }

    fn protect(&mut self, gpa: Gpa, pages: u64, rights: Rights) -> Result<(), Refused> {
        self.each_leaf(gpa, pages, |tables, at, level| tables.protect_leaf(at, level, rights))
    }

    fn compact(&mut self) {
        // SAFETY: as for `unmap`.
        unsafe { self.0.clean_up(&mut Frames) };
    }

    fn find(&self, gpa: Gpa) -> Option<Spte> {
        let TranslateResult::Mapped { frame, offset, flags } = self.0.translate(virt(gpa)) else { return None };
        let level = match frame {
            MappedFrame::Size4KiB(_) => Level::Page4K,
            MappedFrame::Size2MiB(_) => Level::Page2M,
            MappedFrame::Size1GiB(_) => Level::Page1G,
        };
        let pfn = pfn_at(frame.start_address().as_u64() + offset);
        Some(Spte::new(pfn, rights(flags))?.at_level(level))
    }
}
