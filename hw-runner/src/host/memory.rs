//! Host memory that guests use: pages of this process, mapped once or several times.
#![expect(unsafe_code, reason = "maps memory that a guest shares, so every access is through a raw pointer")]

use gpa_model::Gpa;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bytes of a page.
pub(crate) const PAGE_BYTES: usize = Gpa::from_page(1).raw() as usize;
/// Pages of a huge page. Each mapping spans exactly one huge page of addresses, so that the kernel can collapse
/// it.
pub(crate) const HUGE_PAGES: usize = PAGE_BYTES / size_of::<u64>();
/// Bytes of one mapping.
pub(crate) const MAPPING_BYTES: usize = HUGE_PAGES * PAGE_BYTES;

/// Up to a huge page of pages: anonymous and private, or those of a memfd, mapped several times in a row. A
/// guest may change their bytes whenever it runs.
#[derive(Debug)]
pub(crate) struct Pages {
    /// The reserved addresses; `None` if another owner unmaps them.
    reserved: Option<NonNull<u8>>,
    /// The first mapping, on a huge-page boundary.
    start: NonNull<u8>,
    pages: usize,
    mappings: usize,
    file: Option<File>,
    /// Pages with `PROT_NONE`, one bit each. This process cannot access them either.
    gone: AtomicU64,
}

// SAFETY: every access is atomic, uses a raw pointer, and stays within addresses that live as long as the
// value.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// `pages` zeroed pages, anonymous and private.
    pub(crate) fn new(pages: usize) -> io::Result<Self> {
        Self::map(pages, 1, None)
    }

    /// A huge page of zeroed pages, backed by a huge page if the host has one.
    pub(crate) fn huge() -> io::Result<Self> {
        let this = Self::new(HUGE_PAGES)?;
        // MADV_HUGEPAGE is advice: without huge pages everything works, a little slower.
        // SAFETY: the advice does not change the content of the range.
        unsafe { libc::madvise(this.start.cast().as_ptr(), MAPPING_BYTES, libc::MADV_HUGEPAGE) };
        Ok(this)
    }

    /// `pages` zeroed pages of a memfd, mapped `mappings` times.
    pub(crate) fn shared(pages: usize, mappings: usize) -> io::Result<Self> {
        // SAFETY: the name is a C string.
        let fd = unsafe { libc::memfd_create(c"guest".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the file descriptor is new, and only this value owns it.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(MAPPING_BYTES as u64)?;
        Self::map(pages, mappings, Some(file))
    }

    fn map(pages: usize, mappings: usize, file: Option<File>) -> io::Result<Self> {
        assert!(pages <= HUGE_PAGES, "{pages} pages, but a mapping has {HUGE_PAGES}");
        let bytes = (mappings + 1) * MAPPING_BYTES;
        let (rights, flags) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        // SAFETY: the kernel chooses addresses that are not in use.
        let reserved = pointer(unsafe { libc::mmap(std::ptr::null_mut(), bytes, rights, flags, -1, 0) })?;
        let skip = reserved.as_ptr().align_offset(MAPPING_BYTES);
        // SAFETY: the reservation is one mapping longer than needed.
        let start = unsafe { reserved.add(skip) };
        let this = Self { reserved: Some(reserved), start, pages, mappings, file, gone: AtomicU64::new(0) };
        for mapping in 0..mappings {
            let at = this.range(mapping, 0, pages);
            // SAFETY: the range was just reserved and is not shared yet. On failure the drop unmaps it.
            unsafe { this.map_at(at.as_ptr(), libc::MAP_FIXED, 0, HUGE_PAGES) }?;
        }
        Ok(this)
    }

    /// Maps `pages` pages of this memory, starting with number `page`, at `at` with `flags`: anonymous ones, or the file's.
    ///
    /// # Safety
    /// `MAP_FIXED` replaces the mapping at `at`; the caller must not need it any more.
    pub(crate) unsafe fn map_at(
        &self,
        at: *mut u8,
        flags: libc::c_int,
        page: usize,
        pages: usize,
    ) -> io::Result<NonNull<u8>> {
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let (kind, fd) = match &self.file {
            Some(file) => (libc::MAP_SHARED, file.as_raw_fd()),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
        };
        let offset = (page * PAGE_BYTES) as libc::off_t;
        // SAFETY: the caller guarantees it.
        let start = pointer(unsafe { libc::mmap(at.cast(), pages * PAGE_BYTES, rights, kind | flags, fd, offset) })?;
        share_with_children(start, pages * PAGE_BYTES, false).map(|()| start)
    }

    /// The address of page `page` in mapping `mapping`, as KVM's ioctls take it.
    pub(crate) fn hva(&self, mapping: usize, page: usize) -> u64 {
        self.range(mapping, page, 1).as_ptr() as u64
    }

    /// The number of pages.
    pub(crate) fn len(&self) -> usize {
        self.pages
    }

    /// How often each page is mapped.
    pub(crate) fn mappings(&self) -> usize {
        self.mappings
    }

    /// The pages with `PROT_NONE`, one bit each.
    pub(crate) fn gone(&self) -> u64 {
        self.gone.load(Ordering::Relaxed)
    }

    /// Whether page number `page` has `PROT_NONE`.
    pub(crate) fn is_gone(&self, page: usize) -> bool {
        self.gone() >> page & 1 != 0
    }

    pub(crate) fn set_gone(&self, pages: u64) {
        self.gone.store(pages, Ordering::Relaxed);
    }

    /// The file that is mapped; `None` if the memory is anonymous.
    pub(crate) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    pub(crate) fn read_u32(&self, page: usize, offset: usize) -> u32 {
        let at = self.at(page, offset, align_of::<AtomicU32>());
        // SAFETY: `at` is aligned and inside the live mapping; the guest, too, only makes atomic accesses.
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

    /// The address of `pages` pages, starting with number `page`, in mapping `mapping`.
    pub(crate) fn range(&self, mapping: usize, page: usize, pages: usize) -> NonNull<u8> {
        let inside = pages > 0 && page + pages <= self.pages && mapping < self.mappings;
        assert!(inside, "pages {page} + {pages} of {}, mapping {mapping} of {}", self.pages, self.mappings);
        // SAFETY: the assertion above bounds the offset to the mappings.
        unsafe { self.start.add(mapping * MAPPING_BYTES + page * PAGE_BYTES) }
    }

    fn at(&self, page: usize, offset: usize, align: usize) -> NonNull<u8> {
        let inside = page < self.pages && offset + align <= PAGE_BYTES && offset.is_multiple_of(align);
        assert!(inside, "byte {offset} of page {page} of {}", self.pages);
        // SAFETY: the assertion above bounds the offset to the first mapping.
        unsafe { self.start.add(page * PAGE_BYTES + offset) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let Some(reserved) = self.reserved else { return };
        // SAFETY: this value owns the addresses, and nothing borrows from them any more.
        unsafe { libc::munmap(reserved.as_ptr().cast(), (self.mappings + 1) * MAPPING_BYTES) };
    }
}

/// A mapping of this process: its first address and its length in bytes.
pub(crate) type Mapping = (usize, usize);

/// The anonymous, shared, writable mappings of this process. KVM's `vm_mmap()` for internal memslots makes such
/// ones.
pub(crate) fn shared_mappings() -> io::Result<Vec<Mapping>> {
    // START-END RIGHTS OFFSET DEVICE INODE PATH
    let one = |line: &str| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        (words.next()? == "rw-s" && words.nth(3)? == "/dev/zero").then_some((start, end - start))
    };
    Ok(std::fs::read_to_string("/proc/self/maps")?.lines().filter_map(one).collect())
}

/// The mappings of `pages` pages that exist now and are not in `before`. They must outlive the returned values.
pub(crate) fn new_shared_mappings(before: &[Mapping], pages: usize) -> io::Result<Vec<Pages>> {
    let new = |mapping: &Mapping| !before.contains(mapping) && mapping.1 == pages * PAGE_BYTES;
    let start = |(start, _)| NonNull::new(std::ptr::with_exposed_provenance_mut(start));
    let starts = shared_mappings()?.into_iter().filter(new).filter_map(start);
    Ok(starts
        .map(|start| Pages { reserved: None, start, pages, mappings: 1, file: None, gone: AtomicU64::new(0) })
        .collect())
}

/// Chooses whether a child of `fork` gets these addresses. By default it does not: a fork elsewhere in this
/// process would write-protect every page, and KVM answers differently for pages that the host cannot write.
pub(crate) fn share_with_children(start: NonNull<u8>, bytes: usize, share: bool) -> io::Result<()> {
    let advice = if share { libc::MADV_DOFORK } else { libc::MADV_DONTFORK };
    // SAFETY: the advice changes what a later fork does, and nothing else.
    match unsafe { libc::madvise(start.cast().as_ptr(), bytes, advice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Checks the result of `mmap` or `mremap`.
pub(crate) fn pointer(mapped: *mut libc::c_void) -> io::Result<NonNull<u8>> {
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(mapped.cast()).ok_or_else(|| io::Error::other("the kernel mapped memory at address 0"))
}
