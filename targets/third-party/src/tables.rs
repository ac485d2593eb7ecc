//! [`Tables`]: what a crate's page tables have to offer so that a hypervisor can put them under its memslots.

use gpa_model::{Gpa, Pfn, Rights, Spte};
use std::fmt::Debug;

/// The crate answered with an error, where the hypervisor's request was a sound one.
pub(crate) struct Refused;

impl<E: Debug> From<E> for Refused {
    fn from(_: E) -> Self {
        Self
    }
}

/// The second-stage tables of one VM. Ranges are whole pages, and are not empty.
pub(crate) trait Tables: Sized {
    /// How many bits of a GPA they translate.
    const GPA_BITS: u8 = 48;

    /// Whether a range that is unmapped or protected may have pages in it that are not mapped.
    const HOLES: bool;

    /// Whether the crate flushes TLBs by itself, and [`flushes`](crate::flushes) tells of it. Otherwise that is left to the hypervisor.
    const FLUSHES: bool;

    /// With nothing mapped.
    fn new() -> Self;

    /// Map `pages` pages that follow one another and of which none is mapped, in leaves as large as the crate finds fit.
    fn map(&mut self, gpa: Gpa, pfn: Pfn, pages: u64, rights: Rights) -> Result<(), Refused>;

    /// From now on nothing maps the range, whatever leaves its ends lie in.
    fn unmap(&mut self, gpa: Gpa, pages: u64) -> Result<(), Refused>;

    /// What is mapped of the range has these rights from now on. By default it is unmapped and mapped anew.
    fn protect(&mut self, gpa: Gpa, pages: u64, rights: Rights) -> Result<(), Refused> {
        let at = |page| gpa.add_pages(page);
        let mut page = 0;
        while page < pages {
            let Some(first) = self.find(at(page)).map(Spte::pfn) else {
                page += 1;
                continue;
            };
            let follows = |n: &u64| self.find(at(page + n)).is_some_and(|spte| spte.pfn() == first.add(*n));
            let run = 1 + (1..pages - page).take_while(follows).count() as u64;
            self.unmap(at(page), run)?;
            self.map(at(page), first, run, rights)?;
            page += run;
        }
        Ok(())
    }

    /// Free what tables are empty, if the crate does that only when it is asked.
    fn compact(&mut self) {}

    /// What maps `gpa`.
    fn find(&self, gpa: Gpa) -> Option<Spte>;
}

/// A page as a physical address.
pub(crate) fn address(pfn: Pfn) -> u64 {
    bytes(pfn.raw().into())
}

/// The page at a physical address.
pub(crate) fn pfn_at(address: u64) -> Pfn {
    Pfn::new(Gpa::new(address).page() as u32)
}

/// The size of so many pages.
pub(crate) fn bytes(pages: u64) -> u64 {
    Gpa::from_page(pages).raw()
}
