//! The host's side: its pages, and what it tells KVM of them.
//!
//! UNSAFETY: gives access to the bytes of a page.

#![expect(unsafe_code, reason = "reads and writes the guest's memory")]

use super::{Failure, Function, Kernel, Protection};
use crate::memory::{PAGE, PHYSICAL, host};

/// The address of page `page` in user space, for a memslot.
pub const fn hva(page: u64) -> u64 {
    host::hva(page)
}

/// Which half of an invalidation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// `invalidate_range_start`.
    Start,
    /// `invalidate_range_end`.
    End,
}

/// What is asked of the MMU notifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ageing {
    /// `clear_flush_young`.
    ClearFlush,
    /// `clear_young`.
    Clear,
    /// `test_young`, of the first page.
    Test,
}

impl Kernel {
    /// How many pages the host has, numbered from 0.
    pub fn host_pages(&self) -> u64 {
        host::HOST_PAGES
    }

    /// The physical page behind page `page`, if one is.
    pub fn pfn(&self, page: u64) -> Option<u64> {
        host::pfn(page)
    }

    /// References to a physical page that KVM holds.
    pub fn page_references(&self, pfn: u64) -> i32 {
        host::references(pfn)
    }

    /// Tell KVM that what is behind pages is about to change, or has.
    ///
    /// # Errors
    /// If the kernel died.
    pub fn invalidate(&self, phase: Phase, page: u64, pages: u64) -> Result<(), Failure> {
        let start = u64::from(phase == Phase::Start);
        self.call(Function::Invalidate, &[hva(page), hva(page + pages), start])?;
        self.settle();
        Ok(())
    }

    /// Whether any of the pages was accessed.
    ///
    /// # Errors
    /// If the kernel died.
    pub fn age(&self, how: Ageing, page: u64, pages: u64) -> Result<bool, Failure> {
        let young = self.call(Function::Age, &[hva(page), hva(page + pages), how as u64])? as i32;
        self.settle();
        Ok(young != 0)
    }

    /// Take pages away: the next look-up of each finds a fresh one. To be done between the two phases of an invalidation.
    pub fn take_away(&self, page: u64, pages: u64) {
        host::take_away(page, pages);
    }

    /// Put fresh pages, in one piece aligned to `align` pages, behind pages: the first. To be done as [`Kernel::take_away`].
    pub fn renew(&self, page: u64, pages: u64, align: u64) -> u64 {
        host::renew(page, pages, align)
    }

    /// Say what may be done with pages.
    pub fn protect(&self, page: u64, pages: u64, protection: Protection) {
        host::protect(page, pages, protection);
    }

    /// Say how large the host maps pages: 1 for 4 KiB, 2 for 2 MiB, 3 for 1 GiB.
    pub fn set_level(&self, page: u64, pages: u64, level: u8) {
        host::set_level(page, pages, level);
    }

    /// Read eight bytes of the physical page `pfn`, at a multiple of eight.
    ///
    /// # Panics
    /// If it is not inside of the page.
    pub fn read(&self, pfn: u64, offset: u64) -> u64 {
        // SAFETY: a page of the guest's memory.
        unsafe { *word(pfn, offset) }
    }

    /// Write eight bytes of the physical page `pfn`, at a multiple of eight.
    ///
    /// # Panics
    /// If it is not inside of the page.
    pub fn write(&self, pfn: u64, offset: u64, value: u64) {
        // SAFETY: a page of the guest's memory.
        unsafe { *word(pfn, offset) = value }
    }
}

fn word(pfn: u64, offset: u64) -> *mut u64 {
    assert!(offset.is_multiple_of(8) && offset < PAGE && pfn >= host::FIRST_PFN, "a word of a page of the guest");
    (PHYSICAL + pfn * PAGE + offset) as *mut u64
}
