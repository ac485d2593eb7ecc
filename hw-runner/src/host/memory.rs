//! Host memory that guests use: pages of this process, mapped once or several times, that can be read and written.
#![expect(unsafe_code, reason = "maps memory that a guest shares, so every access is through a raw pointer")]

use gpa_model::Gpa;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bytes of a page.
pub(crate) const PAGE_BYTES: usize = Gpa::from_page(1).raw() as usize;
/// Pages of a huge page. Every mapping is one whole huge page of addresses, so that the kernel can collapse it.
pub(crate) const HUGE_PAGES: usize = PAGE_BYTES / size_of::<u64>();
/// Bytes of one mapping.
pub(crate) const MAPPING_BYTES: usize = HUGE_PAGES * PAGE_BYTES;

/// Up to a huge page of pages, anonymous and private, or those of a memfd mapped several times in a row. A guest may change
/// their bytes at any time it runs.
#[derive(Debug)]
pub(crate) struct Pages {
    /// All addresses ever asked for; none, if the mapping is somebody else's.
    reserved: Option<NonNull<u8>>,
    /// The first mapping, on a huge-page boundary.
    start: NonNull<u8>,
    pages: usize,
    mappings: usize,
    file: Option<File>,
    /// Pages that nobody can have, this process neither, one bit each.
    gone: AtomicU64,
}

// SAFETY: every access is atomic, by raw pointer, and within addresses that live as long as the value does.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// `pages` zeroed pages, anonymous and private.
    pub(crate) fn new(pages: usize) -> io::Result<Self> {
        Self::map(pages, 1, None)
    }

    /// As many zeroed pages as make a huge page, and if the host has one, it is one.
    pub(crate) fn huge() -> io::Result<Self> {
        let this = Self::new(HUGE_PAGES)?;
        // Only advice: without huge pages everything works, a little slower.
        // SAFETY: what a range is backed by does not change what is in it.
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
        // SAFETY: the file descriptor is new, and ours alone.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(MAPPING_BYTES as u64)?;
        Self::map(pages, mappings, Some(file))
    }

    fn map(pages: usize, mappings: usize, file: Option<File>) -> io::Result<Self> {
        assert!(pages <= HUGE_PAGES, "{pages} pages, but a mapping has {HUGE_PAGES}");
        let bytes = (mappings + 1) * MAPPING_BYTES;
        let (rights, flags) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        // SAFETY: addresses of the kernel's choice touch nothing that exists.
        let reserved = pointer(unsafe { libc::mmap(std::ptr::null_mut(), bytes, rights, flags, -1, 0) })?;
        let skip = reserved.as_ptr().align_offset(MAPPING_BYTES);
        // SAFETY: one mapping more was reserved than is needed.
        let start = unsafe { reserved.add(skip) };
        let this = Self { reserved: Some(reserved), start, pages, mappings, file, gone: AtomicU64::new(0) };
        for mapping in 0..mappings {
            let at = this.range(mapping, 0, pages);
            // SAFETY: the range was just reserved, and nobody has been told of it. What fails is unmapped by the drop.
            unsafe { this.map_at(at.as_ptr(), libc::MAP_FIXED, 0, HUGE_PAGES) }?;
        }
        Ok(this)
    }

    /// Map `pages` pages from number `page` on, at `at` as `flags` say: new ones, or the file's.
    ///
    /// # Safety
    /// With `MAP_FIXED` whatever lies at `at` is gone; nobody may need it.
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
        // SAFETY: as the caller promises.
        let start = pointer(unsafe { libc::mmap(at.cast(), pages * PAGE_BYTES, rights, kind | flags, fd, offset) })?;
        share_with_children(start, pages * PAGE_BYTES, false).map(|()| start)
    }

    /// The address of page `page` in mapping `mapping`, as KVM wants it.
    pub(crate) fn hva(&self, mapping: usize, page: usize) -> u64 {
        self.range(mapping, page, 1).as_ptr() as u64
    }

    /// How many pages there are.
    pub(crate) fn len(&self) -> usize {
        self.pages
    }

    /// How often each is mapped.
    pub(crate) fn mappings(&self) -> usize {
        self.mappings
    }

    /// The pages that nobody can have, this process neither, one bit each of the first.
    pub(crate) fn gone(&self) -> u64 {
        self.gone.load(Ordering::Relaxed)
    }

    /// Whether page number `page` is one of them.
    pub(crate) fn is_gone(&self, page: usize) -> bool {
        self.gone() >> page & 1 != 0
    }

    pub(crate) fn set_gone(&self, pages: u64) {
        self.gone.store(pages, Ordering::Relaxed);
    }

    /// The file that is mapped, if it is one.
    pub(crate) fn file(&self) -> Option<&File> {
        self.file.as_ref()
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

    /// Where `pages` pages from number `page` on lie in mapping `mapping`.
    pub(crate) fn range(&self, mapping: usize, page: usize, pages: usize) -> NonNull<u8> {
        let inside = pages > 0 && page + pages <= self.pages && mapping < self.mappings;
        assert!(inside, "pages {page} + {pages} of {}, mapping {mapping} of {}", self.pages, self.mappings);
        // SAFETY: the offset was just found to lie within the mappings.
        unsafe { self.start.add(mapping * MAPPING_BYTES + page * PAGE_BYTES) }
    }

    fn at(&self, page: usize, offset: usize, align: usize) -> NonNull<u8> {
        let inside = page < self.pages && offset + align <= PAGE_BYTES && offset.is_multiple_of(align);
        assert!(inside, "byte {offset} of page {page} of {}", self.pages);
        // SAFETY: the offset was just found to lie within the first mapping.
        unsafe { self.start.add(page * PAGE_BYTES + offset) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let Some(reserved) = self.reserved else { return };
        // SAFETY: the addresses are ours, and nothing can borrow from them any more.
        unsafe { libc::munmap(reserved.as_ptr().cast(), (self.mappings + 1) * MAPPING_BYTES) };
    }
}

/// A mapping of this process: its first address, and how many bytes it is long.
pub(crate) type Mapping = (usize, usize);

/// The mappings of this process that are anonymous, shared and writable, as KVM makes them for itself.
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

/// The mappings of `pages` pages that are in this list now and were not in `before`. They must live longer than the values.
pub(crate) fn new_shared_mappings(before: &[Mapping], pages: usize) -> io::Result<Vec<Pages>> {
    let new = |mapping: &Mapping| !before.contains(mapping) && mapping.1 == pages * PAGE_BYTES;
    let start = |(start, _)| NonNull::new(std::ptr::with_exposed_provenance_mut(start));
    let starts = shared_mappings()?.into_iter().filter(new).filter_map(start);
    Ok(starts
        .map(|start| Pages { reserved: None, start, pages, mappings: 1, file: None, gone: AtomicU64::new(0) })
        .collect())
}

/// Whether a child gets these addresses by `fork`. It does not unless asked: a fork elsewhere in this process would take the
/// right to write from every page, and KVM tells user space less about pages that the host cannot write.
pub(crate) fn share_with_children(start: NonNull<u8>, bytes: usize, share: bool) -> io::Result<()> {
    let advice = if share { libc::MADV_DOFORK } else { libc::MADV_DONTFORK };
    // SAFETY: only what a later fork does with the addresses changes.
    match unsafe { libc::madvise(start.cast().as_ptr(), bytes, advice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What `mmap` and `mremap` return.
pub(crate) fn pointer(mapped: *mut libc::c_void) -> io::Result<NonNull<u8>> {
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(mapped.cast()).ok_or_else(|| io::Error::other("the kernel mapped memory at address 0"))
}
