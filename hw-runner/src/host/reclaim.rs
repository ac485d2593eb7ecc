//! The table of drivers: how this process takes pages away from under a guest, and which of the ways this kernel has.
//!
//! Some put other pages in place, some move the page with its content, some only unmap it for a moment. Whoever calls gives the
//! pages new identities right after, so that to a program they all mean the same: what was there before must not be found
//! again. `prot_none` is no driver: it leaves no pages that anybody can have.
#![expect(unsafe_code, reason = "calls of memory management have no safe wrapper")]

use crate::host::memory::{MAPPING_BYTES, PAGE_BYTES, Pages, pointer, share_with_children};
use crate::host::userfault::Userfault;
use gpa_model::limits::HOST_PAGES;
use gpa_model::{FrameSet, Reclaim, ReclaimSet};
use std::ffi::c_int;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::{fmt, io};

// Younger than the C library's headers may be.
const MADV_COLLAPSE: c_int = 25;
const MADV_GUARD_INSTALL: c_int = 102;
const MADV_GUARD_REMOVE: c_int = 103;

/// What is driven where a program leaves it open.
pub(crate) const DEFAULT: Reclaim = Reclaim::Dontneed;

/// What became of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reclaimed {
    /// It was done.
    Done,
    /// The kernel was asked and preferred not to, as it may: the pages are where they were.
    Declined,
    /// This kernel, or this kind of memory, has no such way.
    Unsupported,
}

/// How often a driver was asked for, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReclaimCount {
    /// Carried out.
    pub done: u64,
    /// Declined by the kernel, as it may at any time.
    pub declined: u64,
    /// Not carried out, because it does not exist here.
    pub unsupported: u64,
}

/// The drivers of one machine.
#[derive(Clone, Debug)]
pub struct ReclaimTable {
    lacking: [Option<String>; Reclaim::ALL.len()],
    counts: [ReclaimCount; Reclaim::ALL.len()],
}

impl ReclaimTable {
    /// Try each on the first page of `memory`, whose content is lost.
    pub(crate) fn probe(memory: &Pages) -> Self {
        let lacking =
            Reclaim::ALL.map(|reclaim| reclaim_from(reclaim, memory, 0, 1).err().map(|error| error.to_string()));
        Self { lacking, counts: Default::default() }
    }

    /// Take away `pages` pages from number `page` on, by `driver` or as is usual.
    pub(crate) fn unmap(
        &mut self,
        reclaim: Option<Reclaim>,
        memory: &Pages,
        page: usize,
        pages: usize,
    ) -> io::Result<Reclaimed> {
        let reclaim = reclaim.unwrap_or(DEFAULT);
        let count = &mut self.counts[reclaim as usize];
        let needs_all = matches!(reclaim, Reclaim::Fork | Reclaim::Collapse);
        if self.lacking[reclaim as usize].is_some() || needs_all && memory.gone() != 0 {
            count.unsupported += 1;
            return Ok(Reclaimed::Unsupported);
        }
        put_back(memory, page, pages)?;
        let count = &mut self.counts[reclaim as usize];
        match reclaim_from(reclaim, memory, page, pages) {
            Ok(()) => count.done += 1,
            // Nothing was promised: no memory for a huge page or a process now, or a page in use by somebody else.
            Err(error) if matches!(reclaim, Reclaim::Collapse | Reclaim::Fork) && may_decline(&error) => {
                count.declined += 1;
                return Ok(Reclaimed::Declined);
            }
            Err(error) => return Err(error),
        }
        Ok(Reclaimed::Done)
    }

    /// Those that work here.
    pub fn available(&self) -> ReclaimSet {
        Reclaim::ALL.into_iter().filter(|reclaim| self.lacking(*reclaim).is_none()).collect()
    }

    /// Why `driver` does not work here, if it does not.
    pub fn lacking(&self, reclaim: Reclaim) -> Option<&str> {
        self.lacking[reclaim as usize].as_deref()
    }

    /// How often each was asked for.
    pub fn counts(&self) -> impl Iterator<Item = (Reclaim, ReclaimCount)> {
        Reclaim::ALL.into_iter().zip(self.counts)
    }
}

impl fmt::Display for ReclaimTable {
    /// The counts, in a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (reclaim, count)) in self.counts().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{}", reclaim.name())?;
            match (self.lacking(reclaim), count) {
                (Some(_), count) => write!(f, " unsupported ({})", count.unsupported)?,
                (None, ReclaimCount { done, declined: 0, .. }) => write!(f, " {done}")?,
                (None, ReclaimCount { done, declined, .. }) => write!(f, " {done} (and {declined} declined)")?,
            }
        }
        Ok(())
    }
}

/// Leave nobody `pages` pages from number `page` on.
pub(crate) fn prot_none(memory: &Pages, page: usize, pages: usize) -> io::Result<()> {
    memory.set_gone(memory.gone() | bits(page, pages));
    each_mapping(memory, |mapping| protect(memory, mapping, page, pages, libc::PROT_NONE))
}

/// Let everybody have `pages` pages from number `page` on again, with what was in them.
pub(crate) fn put_back(memory: &Pages, page: usize, pages: usize) -> io::Result<()> {
    for page in (page..page + pages).filter(|page| memory.is_gone(*page)) {
        each_mapping(memory, |mapping| protect(memory, mapping, page, 1, READ_WRITE))?;
    }
    memory.set_gone(memory.gone() & !bits(page, pages));
    Ok(())
}

/// Whether pages that a userfaultfd watches can be taken away so: it neither touches them nor minds who watches.
pub(crate) fn leaves_userfaults_alone(reclaim: Option<Reclaim>) -> bool {
    match reclaim.unwrap_or(DEFAULT) {
        Reclaim::Dontneed | Reclaim::Mremap | Reclaim::Munmap | Reclaim::Mprotect | Reclaim::MprotectRead => true,
        Reclaim::PunchHole | Reclaim::Pageout | Reclaim::Cold => true,
        // Writes to the pages, moves them all, or needs to watch them itself.
        Reclaim::Fork | Reclaim::Collapse | Reclaim::Guard | Reclaim::UffdWriteProtect | Reclaim::UffdCopy => false,
    }
}

/// Whether another mapping takes the place of the old one, and nobody watches it any more.
pub(crate) fn replaces(reclaim: Option<Reclaim>) -> bool {
    matches!(reclaim.unwrap_or(DEFAULT), Reclaim::Mremap | Reclaim::Munmap)
}

/// Whether a notifier hears of it every time, so that nothing can map the pages as they were.
pub fn always_invalidates(reclaim: Option<Reclaim>) -> bool {
    match reclaim.unwrap_or(DEFAULT) {
        Reclaim::Dontneed | Reclaim::PunchHole | Reclaim::Mremap | Reclaim::Munmap | Reclaim::Guard => true,
        Reclaim::Mprotect | Reclaim::MprotectRead | Reclaim::UffdWriteProtect | Reclaim::UffdCopy => true,
        // They may decline, or leave the pages where they are.
        Reclaim::Fork | Reclaim::Collapse | Reclaim::Pageout | Reclaim::Cold => false,
    }
}

/// Whether the pages keep their content, so that nothing of it may be lost at any time.
pub(crate) fn keeps_pages(reclaim: Reclaim, memory: &Pages) -> bool {
    match reclaim {
        Reclaim::PunchHole | Reclaim::UffdCopy => false,
        Reclaim::Dontneed | Reclaim::Mremap | Reclaim::Munmap | Reclaim::Guard => memory.file().is_some(),
        Reclaim::Mprotect | Reclaim::MprotectRead | Reclaim::UffdWriteProtect => true,
        Reclaim::Fork | Reclaim::Collapse | Reclaim::Pageout | Reclaim::Cold => true,
    }
}

fn may_decline(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM | libc::EINVAL))
}

/// Do it, under every mapping of the pages.
fn reclaim_from(reclaim: Reclaim, memory: &Pages, page: usize, pages: usize) -> io::Result<()> {
    let each = |apply: &dyn Fn(usize) -> io::Result<()>| each_mapping(memory, apply);
    let protect_and_release = |rights| {
        each(&|mapping| {
            protect(memory, mapping, page, pages, rights)?;
            protect(memory, mapping, page, pages, READ_WRITE)
        })
    };
    let advise = |advice| each(&|mapping| advise(memory, mapping, page, pages, advice));
    match reclaim {
        Reclaim::Dontneed => advise(libc::MADV_DONTNEED),
        Reclaim::Cold => advise(libc::MADV_COLD),
        Reclaim::Pageout if !has_swap() => Err(io::Error::other("this host has no swap")),
        Reclaim::Pageout => advise(libc::MADV_PAGEOUT),
        Reclaim::Guard => advise(MADV_GUARD_INSTALL).and_then(|()| advise(MADV_GUARD_REMOVE)),
        Reclaim::Mremap => each(&|mapping| move_over(memory, mapping, page, pages)),
        Reclaim::Munmap => each(&|mapping| map_over(memory, mapping, page, pages)),
        Reclaim::Mprotect => protect_and_release(libc::PROT_NONE),
        Reclaim::MprotectRead => protect_and_release(libc::PROT_READ),
        Reclaim::PunchHole => punch_hole(memory, page, pages),
        Reclaim::Fork => copy_on_write(memory, page, pages),
        Reclaim::Collapse => each(&|mapping| collapse(memory, mapping)),
        Reclaim::UffdWriteProtect => {
            let userfault = Userfault::new()?;
            let one = |mapping, page| userfault.write_protect_and_release(memory.range(mapping, page, 1), PAGE_BYTES);
            each(&|mapping| (page..page + pages).try_for_each(|page| one(mapping, page)))
        }
        Reclaim::UffdCopy => copy_in(memory, page, pages),
    }
}

fn advise(memory: &Pages, mapping: usize, page: usize, pages: usize, advice: c_int) -> io::Result<()> {
    let at = memory.range(mapping, page, pages);
    // SAFETY: the range lies in the mapping, which nobody holds references into.
    check(unsafe { libc::madvise(at.cast().as_ptr(), pages * PAGE_BYTES, advice) })
}

/// The whole mapping becomes one huge page, wherever its pages were before.
fn collapse(memory: &Pages, mapping: usize) -> io::Result<()> {
    let at = memory.range(mapping, 0, 1);
    // SAFETY: each mapping is one huge page of addresses; content does not change.
    check(unsafe { libc::madvise(at.cast().as_ptr(), MAPPING_BYTES, MADV_COLLAPSE) })
}

fn map_over(memory: &Pages, mapping: usize, page: usize, pages: usize) -> io::Result<()> {
    let at = memory.range(mapping, page, pages);
    // SAFETY: the range lies in the mapping, which nobody holds references into.
    unsafe { memory.map_at(at.as_ptr(), libc::MAP_FIXED, page, pages) }.map(|_| ())
}

fn move_over(memory: &Pages, mapping: usize, page: usize, pages: usize) -> io::Result<()> {
    let at = memory.range(mapping, page, pages);
    let bytes = pages * PAGE_BYTES;
    // SAFETY: without MAP_FIXED nothing is replaced.
    let fresh = unsafe { memory.map_at(std::ptr::null_mut(), 0, page, pages) }?;
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: `fresh` is ours alone and is consumed; the target range lies in the mapping, which stays as long.
    let moved = pointer(unsafe { libc::mremap(fresh.cast().as_ptr(), bytes, bytes, flags, at.as_ptr()) });
    if moved.is_err() {
        // SAFETY: the move failed, so `fresh` is still mapped and still ours.
        unsafe { libc::munmap(fresh.cast().as_ptr(), bytes) };
    }
    moved.map(|_| ())
}

fn protect(memory: &Pages, mapping: usize, page: usize, pages: usize, rights: c_int) -> io::Result<()> {
    let at = memory.range(mapping, page, pages).cast().as_ptr();
    // SAFETY: the range lies in the mapping, and nobody here reads it before its rights are back.
    check(unsafe { libc::mprotect(at, pages * PAGE_BYTES, rights) })
}

const READ_WRITE: c_int = libc::PROT_READ | libc::PROT_WRITE;

fn each_mapping(memory: &Pages, apply: impl Fn(usize) -> io::Result<()>) -> io::Result<()> {
    (0..memory.mappings()).try_for_each(apply)
}

/// One bit for each of `pages` pages from number `page` on.
fn bits(page: usize, pages: usize) -> u64 {
    FrameSet::range(page, pages).bits()
}

const _: () = assert!(HOST_PAGES <= u64::BITS as usize);

fn punch_hole(memory: &Pages, page: usize, pages: usize) -> io::Result<()> {
    let Some(file) = memory.file() else { return Err(io::Error::other("the memory is no file")) };
    punch_hole_into(file, page, pages)
}

/// Leave nothing of `pages` pages of `file` from number `page` on.
pub(crate) fn punch_hole_into(file: &File, page: usize, pages: usize) -> io::Result<()> {
    let (offset, bytes) = ((page * PAGE_BYTES) as libc::off_t, (pages * PAGE_BYTES) as libc::off_t);
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: the file is ours, and the range lies in it.
    check(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, bytes) })
}

/// While a child shares the pages, write to them: each becomes a copy on another page.
fn copy_on_write(memory: &Pages, page: usize, pages: usize) -> io::Result<()> {
    if memory.file().is_some() {
        return Err(io::Error::other("the memory stays shared with a child"));
    }
    let mapping = memory.range(0, 0, 1);
    share_with_children(mapping, MAPPING_BYTES, true)?;
    // SAFETY: the child only makes system calls, and ends by a signal.
    let child = unsafe { libc::fork() };
    let forked = if child == -1 { Err(io::Error::last_os_error()) } else { Ok(()) };
    match child {
        -1 => {}
        0 => loop {
            // SAFETY: system calls that touch no memory. The first sees to it that the child does not outlive its parent.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::pause();
            }
        },
        _ => {}
    }
    share_with_children(mapping, MAPPING_BYTES, false)?;
    forked?;
    (page..page + pages).for_each(|page| touch(memory, page));
    let mut status = 0;
    // SAFETY: the child is ours and not yet waited for, so its number is nobody else's.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        while libc::waitpid(child, &raw mut status, 0) == -1 && interrupted() {}
    }
    // The others get back the right to be written, so that what comes later does not hang on this.
    (0..memory.len()).for_each(|page| touch(memory, page));
    Ok(())
}

/// Write to a page what is there, in a word that no guest writes.
fn touch(memory: &Pages, page: usize) {
    let last = PAGE_BYTES - size_of::<u64>();
    memory.write_u64(page, last, memory.read_u64(page, last));
}

/// Discard the pages and have a userfaultfd put filled ones in their place.
fn copy_in(memory: &Pages, page: usize, pages: usize) -> io::Result<()> {
    let userfault = Userfault::new()?;
    // Page by page: a range may be several mappings to the kernel by now, and a call takes only one.
    (page..page + pages).try_for_each(|page| {
        let range = memory.range(0, page, 1);
        userfault.register_missing(range, PAGE_BYTES)?;
        discard(memory, page, 1)?;
        userfault.fill(range, &[0; PAGE_BYTES / size_of::<u64>()])
    })
}

/// Leave nothing of the pages, whatever they are of.
pub(crate) fn discard(memory: &Pages, page: usize, pages: usize) -> io::Result<()> {
    match memory.file() {
        Some(_) => punch_hole(memory, page, pages),
        None => advise(memory, 0, page, pages, libc::MADV_DONTNEED),
    }
}

fn has_swap() -> bool {
    // SAFETY: plain data, which the call fills in.
    let mut info: libc::sysinfo = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    unsafe { libc::sysinfo(&raw mut info) == 0 && info.totalswap > 0 }
}

fn interrupted() -> bool {
    io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
}

fn check(result: c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
