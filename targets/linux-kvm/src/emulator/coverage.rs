//! Which blocks of the kernel's modules a program executed: a map that QEMU's plugin writes and the campaign reads.
//!
//! Each block has a byte, which is set when the block is executed and cleared when a program begins. To set it is all that the
//! plugin does each time, and the bytes lie close together, because that happens hundreds of thousands of times a program. In shared
//! memory:
//!
//! ```text
//! u64 number of blocks | u64 address, … | u8 executed, …
//! ```
#![expect(unsafe_code, reason = "memory that another process writes is reached through raw pointers")]

use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// Where Linux puts modules on x86-64.
pub const MODULE_SPACE: RangeInclusive<u64> = 0xffff_ffff_c000_0000..=0xffff_ffff_feff_ffff;

/// Blocks that fit: several times those that are executed at all.
const BLOCKS: usize = 1 << 16;

/// Whether a block was executed.
#[derive(Debug)]
#[repr(transparent)]
pub struct Block(AtomicU8);

impl Block {
    /// It is being executed.
    pub fn note(&self) {
        self.0.store(1, Ordering::Relaxed);
    }
}

#[repr(C)]
struct Shared {
    known: AtomicUsize,
    addresses: [AtomicU64; BLOCKS],
    blocks: [Block; BLOCKS],
}

/// The map, in memory shared with each process that opened the same file.
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
        Self::of(&file)
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

    /// Forget what was executed: a program begins.
    pub fn begin(&self) {
        // Nothing that matters is executed meanwhile: the machine waits for the program.
        self.known().for_each(|(_, block)| block.0.store(0, Ordering::Relaxed));
    }

    /// The block at `address`, which is not known yet; `None` if there is no room for it.
    ///
    /// One caller at a time, or two of them get the same.
    pub fn add(&self, address: u64) -> Option<&Block> {
        let shared = self.shared();
        let at = shared.known.load(Ordering::Relaxed);
        let (place, block) = (shared.addresses.get(at)?, &shared.blocks[at]);
        place.store(address, Ordering::Relaxed);
        shared.known.store(at + 1, Ordering::Release);
        Some(block)
    }

    /// The addresses of blocks that were executed since [`Map::begin`].
    pub fn blocks(&self) -> impl Iterator<Item = u64> {
        let executed = self.known().filter(|(_, block)| block.0.load(Ordering::Relaxed) != 0);
        executed.map(|(address, _)| address.load(Ordering::Relaxed))
    }

    fn known(&self) -> impl Iterator<Item = (&AtomicU64, &Block)> {
        let shared = self.shared();
        // What another process says is not believed.
        let known = shared.known.load(Ordering::Acquire).min(BLOCKS);
        shared.addresses[..known].iter().zip(&shared.blocks)
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
    fn a_block_is_noted_and_seen_by_the_other_side_until_a_program_begins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map");
        let reader = Map::create(&path).unwrap();
        let writer = Map::open(&path).unwrap();
        let addresses = [0xffff_ffff_c000_1000, 0xffff_ffff_c000_2000, 0xffff_ffff_c000_3000];
        let [one, _, three] = addresses.map(|address| writer.add(address).unwrap());
        for block in [three, one, three] {
            block.note();
        }
        assert_eq!(reader.blocks().collect::<Vec<_>>(), [addresses[0], addresses[2]]);
        reader.begin();
        assert_eq!(reader.blocks().count(), 0);
        three.note();
        assert_eq!(reader.blocks().collect::<Vec<_>>(), [addresses[2]]);
    }

    #[test]
    fn a_full_map_takes_no_more_and_a_wrong_number_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let map = Map::create(&dir.path().join("map")).unwrap();
        for at in 0..BLOCKS as u64 {
            map.add(at).unwrap().note();
        }
        assert!(map.add(0).is_none());
        map.shared().known.store(usize::MAX, Ordering::Relaxed);
        assert_eq!(map.blocks().count(), BLOCKS);
        assert!(map.add(0).is_none());
    }

    #[test]
    fn another_file_is_no_map() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Map::open(file.path()).is_err());
    }
}
