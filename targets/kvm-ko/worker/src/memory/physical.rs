//! The mappings that everything else lies in.
//!
//! UNSAFETY: maps memory at fixed addresses and hands out raw access to it.

#![expect(unsafe_code, reason = "maps memory at fixed addresses, and reads and writes it")]

use crate::kernel::LoadError;
use std::io;
use std::ptr;

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;
/// Where modules lie.
pub(crate) const LOW: u64 = 0x6000_0000;
/// How much room they have.
pub(crate) const LOW_BYTES: u64 = 64 << 20;
/// Where symbols lie that nothing answers.
pub(crate) const UNANSWERED: u64 = 0x5f00_0000;
/// Room for them.
pub(crate) const UNANSWERED_BYTES: u64 = 1 << 20;
/// The direct map.
pub(crate) const PHYSICAL: u64 = 0x1000_0000_0000;
/// Physical memory. Almost all of it is never touched, and takes no room.
pub(crate) const PHYSICAL_BYTES: u64 = 1 << 40;
/// Physical memory below this is the kernel's heap, above it the guest's pages.
pub(crate) const HEAP_END: u64 = 4 << 30;
/// `struct page` of page 0.
pub(crate) const PAGES: u64 = 0x2000_0000_0000;
/// User space of the host, where the guest's memory is.
pub(crate) const HVA: u64 = 0x0800_0000_0000;
/// How much of it there is.
pub(crate) const HVA_BYTES: u64 = 64 << 30;

/// Map all of it. The file that physical memory is.
pub(crate) fn map() -> Result<i32, LoadError> {
    // SAFETY: a constant string.
    let file = unsafe { libc::memfd_create(c"physical".as_ptr(), libc::MFD_CLOEXEC) };
    // SAFETY: no pointers.
    if file < 0 || unsafe { libc::ftruncate(file, PHYSICAL_BYTES as i64) } != 0 {
        return Err(failed("a file for physical memory"));
    }
    let data = libc::PROT_READ | libc::PROT_WRITE;
    let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    map_at(LOW, LOW_BYTES, data | libc::PROT_EXEC, private, -1, 0)?;
    map_at(UNANSWERED, UNANSWERED_BYTES, libc::PROT_NONE, private, -1, 0)?;
    map_at(PHYSICAL, PHYSICAL_BYTES, data, libc::MAP_SHARED, file, 0)?;
    map_at(PAGES, PHYSICAL_BYTES / PAGE * 64, data, private, -1, 0)?;
    map_at(HVA, HVA_BYTES, data, libc::MAP_SHARED, file, HEAP_END)?;
    Ok(file)
}

fn map_at(at: u64, bytes: u64, rights: i32, flags: i32, file: i32, offset: u64) -> Result<(), LoadError> {
    let flags = flags | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: MAP_FIXED_NOREPLACE maps nothing over what is there.
    let got = unsafe { libc::mmap(at as *mut _, bytes as usize, rights, flags, file, offset as i64) };
    if got as u64 == at { Ok(()) } else { Err(failed(&format!("{bytes:#x} bytes at {at:#x}"))) }
}

/// Map `bytes` of user space at `hva` to physical memory at `physical`, in place of what they are mapped to.
pub(crate) fn remap(file: i32, hva: u64, bytes: u64, physical: u64) {
    assert!(hva >= HVA && hva + bytes <= HVA + HVA_BYTES && physical + bytes <= PHYSICAL_BYTES, "a page of the host");
    let flags = libc::MAP_SHARED | libc::MAP_NORESERVE | libc::MAP_FIXED;
    let data = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: in user space of the host, which holds nothing but the guest's memory.
    let got = unsafe { libc::mmap(hva as *mut _, bytes as usize, data, flags, file, physical as i64) };
    assert_eq!(got as u64, hva, "expected to map a page of the host again, found: {}", io::Error::last_os_error());
}

fn failed(what: &str) -> LoadError {
    LoadError(format!("expected to map {what}, found: {}", io::Error::last_os_error()))
}

/// Read a value at the address `at`.
///
/// # Safety
/// It must be one of the mappings here, or of an object of the kernel.
pub(crate) unsafe fn read<T: Copy>(at: u64) -> T {
    // SAFETY: of the caller. Not all structures of the kernel are aligned.
    unsafe { ptr::read_unaligned(at as *const T) }
}

/// Write a value at the address `at`.
///
/// # Safety
/// As [`read`].
pub(crate) unsafe fn write<T: Copy>(at: u64, value: T) {
    // SAFETY: of the caller.
    unsafe { ptr::write_unaligned(at as *mut T, value) }
}

/// Write `bytes` times `value` from `at` on.
///
/// # Safety
/// As [`read`].
pub(crate) unsafe fn fill(at: u64, value: u8, bytes: u64) {
    // SAFETY: of the caller.
    unsafe { ptr::write_bytes(at as *mut u8, value, bytes as usize) }
}

/// The first byte from `at` on that is not `value`.
///
/// # Safety
/// As [`read`].
pub(crate) unsafe fn first_other(at: u64, value: u8, bytes: u64) -> Option<u64> {
    // SAFETY: of the caller.
    let slice = unsafe { std::slice::from_raw_parts(at as *const u8, bytes as usize) };
    // What equals itself one byte further on is one byte again and again; the library compares that fastest.
    if slice.is_empty() || slice[0] == value && slice[1..] == slice[..slice.len() - 1] {
        return None;
    }
    slice.iter().position(|byte| *byte != value).map(|offset| at + offset as u64)
}
