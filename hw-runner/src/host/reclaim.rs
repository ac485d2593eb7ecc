//! The ways to reclaim guest pages from user space, and which of them this kernel has.
//!
//! Some replace the pages, some move them with their content, some only unmap them for a moment. The caller gives the
//! pages new identities right after, so that all ways mean the same to a program: the guest must not find the old
//! identity again. `prot_none` is a different op: after it the pages cannot be accessed at all.
#![expect(unsafe_code, reason = "calls of memory management have no safe wrapper")]

use crate::host::memory::{MAPPING_BYTES, PAGE_BYTES, Pages, pointer, share_with_children};
use crate::host::userfault::Userfault;
use gpa_model::limits::HOST_PAGES;
use gpa_model::{FrameSet, Reclaim, ReclaimSet};
use std::ffi::c_int;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::{fmt, io};

// Too new for some versions of the C library's headers.
const MADV_COLLAPSE: c_int = 25;
const MADV_GUARD_INSTALL: c_int = 102;
const MADV_GUARD_REMOVE: c_int = 103;

/// The way that is used if a program does not name one.
pub(crate) const DEFAULT: Reclaim = Reclaim::Dontneed;

/// The result of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reclaimed {
    /// The pages were reclaimed.
    Done,
    /// The kernel declined, as it may. The pages are where they were.
    Declined,
    /// This kernel, or this kind of memory, does not offer this way.
    Unsupported,
}

/// How often one way was used, and with what result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReclaimCount {
    /// Carried out.
    pub done: u64,
    /// Declined by the kernel, as it may at any time.
    pub declined: u64,
    /// Not carried out, because this host does not offer it.
    pub unsupported: u64,
}

/// Which ways one machine offers, and how often each was used.
#[derive(Clone, Debug)]
pub struct ReclaimTable {
    lacking: [Option<String>; Reclaim::ALL.len()],
    counts: [ReclaimCount; Reclaim::ALL.len()],
}

impl ReclaimTable {
    /// Tries each way on the first page of `memory`, whose content is lost.
    pub(crate) fn probe(memory: &Pages) -> Self {
        let lacking =
            Reclaim::ALL.map(|reclaim| reclaim_from(reclaim, memory, 0, 1).err().map(|error| error.to_string()));
        Self { lacking, counts: Default::default() }
    }

    /// Reclaims `pages` pages, starting with number `page`, by `reclaim`, or by [`DEFAULT`] if that is `None`.
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
            // The kernel may decline: it has no huge page or no process to give, or another user holds a page.
            Err(error) if matches!(reclaim, Reclaim::Collapse | Reclaim::Fork) && may_decline(&error) => {
                count.declined += 1;
                return Ok(Reclaimed::Declined);
            }
            Err(error) => return Err(error),
        }
        Ok(Reclaimed::Done)
    }

    /// The ways that work here.
    pub fn available(&self) -> ReclaimSet {
        Reclaim::ALL.into_iter().filter(|reclaim| self.lacking(*reclaim).is_none()).collect()
    }

    /// Why `reclaim` does not work here; `None` if it does.
    pub fn lacking(&self, reclaim: Reclaim) -> Option<&str> {
        self.lacking[reclaim as usize].as_deref()
    }

    /// How often each way was used.
    pub fn counts(&self) -> impl Iterator<Item = (Reclaim, ReclaimCount)> {
        Reclaim::ALL.into_iter().zip(self.counts)
    }
}

impl fmt::Display for ReclaimTable {
    /// The counts, in one line.
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

/// Gives `pages` pages, starting with number `page`, `PROT_NONE` in every mapping.
pub(crate) fn prot_none(memory: &Pages, page: usize, pages: usize) -> io::Result<()> {
    memory.set_gone(memory.gone() | bits(page, pages));
    each_mapping(memory, |mapping| protect(memory, mapping, page, pages, libc::PROT_NONE))
}

/// Makes `pages` pages, starting with number `page`, accessible again, with their old content.
pub(crate) fn put_back(memory: &Pages, page: usize, pages: usize) -> io::Result<()> {
    for page in (page..page + pages).filter(|page| memory.is_gone(*page)) {
        each_mapping(memory, |mapping| protect(memory, mapping, page, 1, READ_WRITE))?;
    }
    memory.set_gone(memory.gone() & !bits(page, pages));
    Ok(())
}

/// Whether `reclaim` works on pages that a userfaultfd watches: it neither touches them nor registers them
/// itself.
pub(crate) fn leaves_userfaults_alone(reclaim: Option<Reclaim>) -> bool {
    match reclaim.unwrap_or(DEFAULT) {
        Reclaim::Dontneed | Reclaim::Mremap | Reclaim::Munmap | Reclaim::Mprotect | Reclaim::MprotectRead => true,
        Reclaim::PunchHole | Reclaim::Pageout | Reclaim::Cold => true,
        // They write to the pages, move all of them, or register them with a userfaultfd.
        Reclaim::Fork | Reclaim::Collapse | Reclaim::Guard | Reclaim::UffdWriteProtect | Reclaim::UffdCopy => false,
    }
}

/// Whether `reclaim` replaces the mapping, so that a userfaultfd does not watch it any more.
pub(crate) fn replaces(reclaim: Option<Reclaim>) -> bool {
    matches!(reclaim.unwrap_or(DEFAULT), Reclaim::Mremap | Reclaim::Munmap)
}

/// Whether `reclaim` always calls the mmu_notifier, so that no stale translation can stay.
pub fn always_invalidates(reclaim: Option<Reclaim>) -> bool {
    match reclaim.unwrap_or(DEFAULT) {
        Reclaim::Dontneed | Reclaim::PunchHole | Reclaim::Mremap | Reclaim::Munmap | Reclaim::Guard => true,
        Reclaim::Mprotect | Reclaim::MprotectRead | Reclaim::UffdWriteProtect | Reclaim::UffdCopy => true,
        // The kernel may decline, or leave the pages where they are.
        Reclaim::Fork | Reclaim::Collapse | Reclaim::Pageout | Reclaim::Cold => false,
    }
}

/// Whether the pages keep their content throughout, so that no write to them may be lost at any time.
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

/// Carries out `reclaim` in every mapping of the pages.
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
    // SAFETY: the range lies in the mapping, and nothing holds references into it.
    check(unsafe { libc::madvise(at.cast().as_ptr(), pages * PAGE_BYTES, advice) })
}

/// Collapses the whole mapping into one huge page.
fn collapse(memory: &Pages, mapping: usize) -> io::Result<()> {
    let at = memory.range(mapping, 0, 1);
    // SAFETY: each mapping spans one huge page of addresses; the content does not change.
    check(unsafe { libc::madvise(at.cast().as_ptr(), MAPPING_BYTES, MADV_COLLAPSE) })
}

fn map_over(memory: &Pages, mapping: usize, page: usize, pages: usize) -> io::Result<()> {
    let at = memory.range(mapping, page, pages);
    // SAFETY: the range lies in the mapping, and nothing holds references into it.
    unsafe { memory.map_at(at.as_ptr(), libc::MAP_FIXED, page, pages) }.map(|_| ())
}

fn move_over(memory: &Pages, mapping: usize, page: usize, pages: usize) -> io::Result<()> {
    let at = memory.range(mapping, page, pages);
    let bytes = pages * PAGE_BYTES;
    // SAFETY: without MAP_FIXED the call replaces nothing.
    let fresh = unsafe { memory.map_at(std::ptr::null_mut(), 0, page, pages) }?;
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: only this function knows `fresh`, which the call consumes; the target range lies in the mapping.
    let moved = pointer(unsafe { libc::mremap(fresh.cast().as_ptr(), bytes, bytes, flags, at.as_ptr()) });
    if moved.is_err() {
        // SAFETY: the move failed, so `fresh` is still mapped, and only this function knows it.
        unsafe { libc::munmap(fresh.cast().as_ptr(), bytes) };
    }
    moved.map(|_| ())
}

fn protect(memory: &Pages, mapping: usize, page: usize, pages: usize, rights: c_int) -> io::Result<()> {
    let at = memory.range(mapping, page, pages).cast().as_ptr();
    // SAFETY: the range lies in the mapping, and this process does not read it until it is accessible again.
    check(unsafe { libc::mprotect(at, pages * PAGE_BYTES, rights) })
}

const READ_WRITE: c_int = libc::PROT_READ | libc::PROT_WRITE;

fn each_mapping(memory: &Pages, apply: impl Fn(usize) -> io::Result<()>) -> io::Result<()> {
    (0..memory.mappings()).try_for_each(apply)
}

/// One bit for each of `pages` pages, starting with number `page`.
fn bits(page: usize, pages: usize) -> u64 {
    FrameSet::range(page, pages).bits()
}

const _: () = assert!(HOST_PAGES <= u64::BITS as usize);

fn punch_hole(memory: &Pages, page: usize, pages: usize) -> io::Result<()> {
    let Some(file) = memory.file() else { return Err(io::Error::other("the memory is anonymous")) };
    punch_hole_into(file, page, pages)
}

/// Punches a hole over `pages` pages of `file`, starting with number `page`.
pub(crate) fn punch_hole_into(file: &File, page: usize, pages: usize) -> io::Result<()> {
    let (offset, bytes) = ((page * PAGE_BYTES) as libc::off_t, (pages * PAGE_BYTES) as libc::off_t);
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: the file is open, and the call passes no pointer.
    check(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, bytes) })
}

/// Forks, and writes to the pages while the child shares them: the kernel copies each to a new page.
fn copy_on_write(memory: &Pages, page: usize, pages: usize) -> io::Result<()> {
    if memory.file().is_some() {
        return Err(io::Error::other("the memory stays shared with a child"));
    }
    let mapping = memory.range(0, 0, 1);
    share_with_children(mapping, MAPPING_BYTES, true)?;
    // SAFETY: the child only makes system calls, and a signal ends it.
    let child = unsafe { libc::fork() };
    let forked = if child == -1 { Err(io::Error::last_os_error()) } else { Ok(()) };
    match child {
        -1 => {}
        0 => loop {
            // SAFETY: system calls that touch no memory. PR_SET_PDEATHSIG ends the child with its parent.
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
    // SAFETY: `child` has not been waited for, so its number has not been reused.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        while libc::waitpid(child, &raw mut status, 0) == -1 && interrupted() {}
    }
    // All other pages become writable again, so that later results do not depend on this fork.
    (0..memory.len()).for_each(|page| touch(memory, page));
    Ok(())
}

/// Writes back the content of a word that no guest writes.
fn touch(memory: &Pages, page: usize) {
    let last = PAGE_BYTES - size_of::<u64>();
    memory.write_u64(page, last, memory.read_u64(page, last));
}

/// Discards the pages and fills new ones in by userfaultfd.
fn copy_in(memory: &Pages, page: usize, pages: usize) -> io::Result<()> {
    let userfault = Userfault::new()?;
    // Page by page: earlier ops may have split the range into several VMAs, and a call takes only one.
    (page..page + pages).try_for_each(|page| {
        let range = memory.range(0, page, 1);
        userfault.register_missing(range, PAGE_BYTES)?;
        discard(memory, page, 1)?;
        userfault.fill(range, &[0; PAGE_BYTES / size_of::<u64>()])
    })
}

/// Discards the pages, whether anonymous or of a file.
pub(crate) fn discard(memory: &Pages, page: usize, pages: usize) -> io::Result<()> {
    match memory.file() {
        Some(_) => punch_hole(memory, page, pages),
        None => advise(memory, 0, page, pages, libc::MADV_DONTNEED),
    }
}

fn has_swap() -> bool {
    // SAFETY: plain data, for which zero is valid.
    let mut info: libc::sysinfo = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes to `info`, which outlives the call.
    unsafe { libc::sysinfo(&raw mut info) == 0 && info.totalswap > 0 }
}

fn interrupted() -> bool {
    io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
}

fn check(result: c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
