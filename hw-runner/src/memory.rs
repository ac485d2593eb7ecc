//! Host memory that guests use: pages of this process that can be read, written, given up and replaced.
#![expect(unsafe_code, reason = "maps memory that a guest shares, so every access is through a raw pointer")]

use gpa_model::Gpa;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bytes of a page.
pub(crate) const PAGE_BYTES: usize = Gpa::from_page(1).raw() as usize;

/// An anonymous mapping of whole pages. A guest may change its bytes at any time it runs.
#[derive(Debug)]
pub(crate) struct Pages {
    start: NonNull<u8>,
    pages: usize,
}

impl Pages {
    /// `pages` zeroed pages.
    pub(crate) fn new(pages: usize) -> io::Result<Self> {
        map(pages).map(|start| Self { start, pages })
    }

    /// The address of page `page` as KVM wants it.
    pub(crate) fn hva(&self, page: usize) -> u64 {
        self.at(page, 0, 1).as_ptr() as u64
    }

    /// How many pages there are.
    pub(crate) fn len(&self) -> usize {
        self.pages
    }

    pub(crate) fn read_u32(&self, page: usize, offset: usize) -> u32 {
        let at = self.at(page, offset, align_of::<AtomicU32>());
        // SAFETY: `at` is inside the live mapping and aligned; other users (the guest) only make racing atomic accesses.
        unsafe { AtomicU32::from_ptr(at.cast().as_ptr()) }.load(Ordering::Acquire)
    }

    pub(crate) fn write_u32(&self, page: usize, offset: usize, value: u32) {
        let at = self.at(page, offset, align_of::<AtomicU32>());
        // SAFETY: as in `read_u32`.
        unsafe { AtomicU32::from_ptr(at.cast().as_ptr()) }.store(value, Ordering::Release);
    }

    pub(crate) fn read_u64(&self, page: usize, offset: usize) -> u64 {
        let at = self.at(page, offset, align_of::<AtomicU64>());
        // SAFETY: as in `read_u32`.
        unsafe { AtomicU64::from_ptr(at.cast().as_ptr()) }.load(Ordering::Acquire)
    }

    pub(crate) fn write_u64(&self, page: usize, offset: usize, value: u64) {
        let at = self.at(page, offset, align_of::<AtomicU64>());
        // SAFETY: as in `read_u32`.
        unsafe { AtomicU64::from_ptr(at.cast().as_ptr()) }.store(value, Ordering::Release);
    }

    /// Give pages back to the kernel; whoever touches them next finds zeros on a new page (`MADV_DONTNEED`).
    pub(crate) fn discard(&self, page: usize, pages: usize) -> io::Result<()> {
        let at = self.range(page, pages);
        // SAFETY: the range lies in the mapping, which nobody holds references into.
        check(unsafe { libc::madvise(at.cast().as_ptr(), pages * PAGE_BYTES, libc::MADV_DONTNEED) })
    }

    /// Move new pages over old ones: the same end as [`Pages::discard`], through another notifier (`mremap`).
    pub(crate) fn replace(&self, page: usize, pages: usize) -> io::Result<()> {
        let at = self.range(page, pages);
        let bytes = pages * PAGE_BYTES;
        let fresh = map(pages)?;
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: `fresh` is ours alone and is consumed; the target range lies in the mapping, which stays as long.
        let moved = unsafe { libc::mremap(fresh.cast().as_ptr(), bytes, bytes, flags, at.as_ptr()) };
        if moved == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            // SAFETY: the move failed, so `fresh` is still mapped and still ours.
            unsafe { libc::munmap(fresh.cast().as_ptr(), bytes) };
            return Err(error);
        }
        Ok(())
    }

    fn range(&self, page: usize, pages: usize) -> NonNull<u8> {
        assert!(pages > 0 && page + pages <= self.pages, "pages {page} + {pages} of {}", self.pages);
        self.at(page, 0, 1)
    }

    fn at(&self, page: usize, offset: usize, align: usize) -> NonNull<u8> {
        let inside = page < self.pages && offset + align <= PAGE_BYTES && offset.is_multiple_of(align);
        assert!(inside, "byte {offset} of page {page} of {}", self.pages);
        // SAFETY: the offset was just found to lie within the mapping.
        unsafe { self.start.add(page * PAGE_BYTES + offset) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing can borrow from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.pages * PAGE_BYTES) };
    }
}

fn map(pages: usize) -> io::Result<NonNull<u8>> {
    let (rights, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that exists.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), pages * PAGE_BYTES, rights, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(start.cast()).ok_or_else(|| io::Error::other("the kernel mapped memory at address 0"))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
