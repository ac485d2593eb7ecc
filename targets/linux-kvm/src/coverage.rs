//! Which blocks of the kernel's modules a program executed: a map that QEMU's plugin writes and the campaign reads.
//!
//! The map is a list that the plugin appends to: each block once, at its first execution since the reader began anew. So a program
//! costs what it executes, however large the kernel is, and addresses stay exact. In shared memory:
//!
//! ```text
//! u32 round | u32 length | u64 address | u64 address | …
//! ```
#![expect(unsafe_code, reason = "memory that another process writes is reached through raw pointers")]

use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Where Linux puts modules on x86-64.
pub const MODULE_SPACE: RangeInclusive<u64> = 0xffff_ffff_c000_0000..=0xffff_ffff_feff_ffff;

/// Blocks that fit: ten times those of the largest programs.
const BLOCKS: usize = 1 << 16;

/// A block of code, as the plugin keeps it.
#[derive(Debug)]
pub struct Block {
    address: u64,
    /// The round in which it was noted last.
    round: AtomicU32,
}

impl Block {
    /// The block that begins at `address`.
    pub fn at(address: u64) -> Self {
        Self { address, round: AtomicU32::new(0) }
    }
}

#[repr(C)]
struct Shared {
    round: AtomicU32,
    length: AtomicU32,
    addresses: [AtomicU64; BLOCKS],
}

/// The map, in memory that it shares with everybody who opened the same file.
#[derive(Debug)]
pub struct Map(NonNull<Shared>);

// SAFETY: all of it is atomics.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// Make an empty map in the new file `path`.
    ///
    /// # Errors
    /// If the file cannot be made or mapped.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        file.set_len(size_of::<Shared>() as u64)?;
        let map = Self::of(&file)?;
        map.begin();
        Ok(map)
    }

    /// The map in the file `path`.
    ///
    /// # Errors
    /// If there is no such file, or it is no map.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        if file.metadata()?.len() != size_of::<Shared>() as u64 {
            return Err(io::Error::other(format!("expected a map of {} bytes", size_of::<Shared>())));
        }
        Self::of(&file)
    }

    fn of(file: &File) -> io::Result<Self> {
        let (rights, length) = (libc::PROT_READ | libc::PROT_WRITE, size_of::<Shared>());
        // SAFETY: a shared mapping of a file of this length, at an address of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, rights, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(start.cast()).map(Self).ok_or_else(|| io::Error::other("the kernel mapped memory at address 0"))
    }

    fn shared(&self) -> &Shared {
        // SAFETY: the mapping lives as long as `self`, is aligned to a page, and all of it is atomics, valid with any content.
        unsafe { self.0.as_ref() }
    }

    /// Forget everything: a program begins.
    pub fn begin(&self) {
        // Nothing is executed meanwhile: the machine waits for the program.
        self.shared().length.store(0, Ordering::Release);
        self.shared().round.fetch_add(1, Ordering::Release);
    }

    /// `block` is being executed.
    pub fn note(&self, block: &Block) {
        let shared = self.shared();
        let round = shared.round.load(Ordering::Relaxed);
        if block.round.load(Ordering::Relaxed) == round {
            return;
        }
        block.round.store(round, Ordering::Relaxed);
        let at = shared.length.load(Ordering::Relaxed) as usize;
        if let Some(place) = shared.addresses.get(at) {
            // One CPU executes, so nobody else appends.
            place.store(block.address, Ordering::Relaxed);
            shared.length.store(at as u32 + 1, Ordering::Release);
        }
    }

    /// The addresses noted since [`Map::begin`].
    pub fn blocks(&self) -> impl Iterator<Item = u64> {
        let shared = self.shared();
        let length = (shared.length.load(Ordering::Acquire) as usize).min(BLOCKS);
        shared.addresses[..length].iter().map(|address| address.load(Ordering::Relaxed))
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing borrows from it any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<Shared>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_noted_once_a_program_and_seen_by_the_other_side() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map");
        let reader = Map::create(&path).unwrap();
        let writer = Map::open(&path).unwrap();
        let (one, two) = (Block::at(0xffff_ffff_c000_1000), Block::at(0xffff_ffff_c000_2000));
        for block in [&one, &two, &one] {
            writer.note(block);
        }
        assert_eq!(reader.blocks().collect::<Vec<_>>(), [0xffff_ffff_c000_1000, 0xffff_ffff_c000_2000]);
        reader.begin();
        assert_eq!(reader.blocks().count(), 0);
        writer.note(&two);
        assert_eq!(reader.blocks().collect::<Vec<_>>(), [0xffff_ffff_c000_2000]);
    }

    #[test]
    fn a_full_map_takes_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let map = Map::create(&dir.path().join("map")).unwrap();
        for at in 0..BLOCKS as u64 + 10 {
            map.note(&Block::at(at));
        }
        assert_eq!(map.blocks().count(), BLOCKS);
    }

    #[test]
    fn another_file_is_no_map() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Map::open(file.path()).is_err());
    }
}
