//! A userfaultfd: this process answers the page faults of a range of addresses.
#![expect(unsafe_code, reason = "raw ioctls have no safe wrapper")]

use crate::host::memory::PAGE_BYTES;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::NonNull;
use std::time::Duration;
use vmm_sys_util::ioctl::ioctl_with_mut_ref;
use vmm_sys_util::{ioctl_ior_nr, ioctl_iowr_nr};

// The crate userfaultfd is no alternative: it needs libclang at build time, for bindings of these five ioctls.
ioctl_iowr_nr!(UFFDIO_API, UFFDIO, 0x3f, Api);
ioctl_iowr_nr!(UFFDIO_REGISTER, UFFDIO, 0x00, Register);
ioctl_ior_nr!(UFFDIO_UNREGISTER, UFFDIO, 0x01, Range);
ioctl_iowr_nr!(UFFDIO_COPY, UFFDIO, 0x03, Copy);
ioctl_iowr_nr!(UFFDIO_WRITEPROTECT, UFFDIO, 0x06, WriteProtect);

const PAGE_WORDS: usize = PAGE_BYTES / size_of::<u64>();

/// The type of these ioctls, which is also the version of their interface.
const UFFDIO: u32 = 0xaa;
const MODE_MISSING: u64 = 1;
const MODE_WRITE_PROTECT: u64 = 2;
const FEATURE_WRITE_PROTECT: u64 = 1;
const FEATURE_WRITE_PROTECT_SHARED: u64 = 0x1000;

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Range {
    start: u64,
    len: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct WriteProtect {
    start: u64,
    len: u64,
    mode: u64,
}

#[repr(C)]
struct Copy {
    to: u64,
    from: u64,
    len: u64,
    mode: u64,
    copied: i64,
}

/// The file descriptor. Dropping it unregisters its ranges and wakes the threads that wait for a page.
#[derive(Debug)]
pub(crate) struct Userfault(File);

impl Userfault {
    /// A userfaultfd that can write-protect every kind of memory.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: the call takes flags and returns a new file descriptor.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the file descriptor is new, and only this value owns it.
        let this = Self(unsafe { File::from_raw_fd(fd as _) });
        let features = FEATURE_WRITE_PROTECT | FEATURE_WRITE_PROTECT_SHARED;
        this.call(UFFDIO_API(), &mut Api { api: UFFDIO.into(), features, ioctls: 0 })?;
        Ok(this)
    }

    /// Write-protects a range and lifts the protection again.
    pub(crate) fn write_protect_and_release(&self, range: NonNull<u8>, bytes: usize) -> io::Result<()> {
        let (start, len) = (range.as_ptr() as u64, bytes as u64);
        self.call(UFFDIO_REGISTER(), &mut Register { start, len, mode: MODE_WRITE_PROTECT, ioctls: 0 })?;
        self.call(UFFDIO_WRITEPROTECT(), &mut WriteProtect { start, len, mode: 1 })?;
        self.call(UFFDIO_WRITEPROTECT(), &mut WriteProtect { start, len, mode: 0 })?;
        self.call(UFFDIO_UNREGISTER(), &mut Range { start, len })
    }

    /// Registers a range whose missing pages this process fills in. A thread that touches one waits until then.
    pub(crate) fn register_missing(&self, range: NonNull<u8>, bytes: usize) -> io::Result<()> {
        let (start, len) = (range.as_ptr() as u64, bytes as u64);
        self.call(UFFDIO_REGISTER(), &mut Register { start, len, mode: MODE_MISSING, ioctls: 0 })
    }

    /// Fills in a missing page at `range` and unregisters the range.
    pub(crate) fn fill(&self, range: NonNull<u8>, page: &[u64; PAGE_WORDS]) -> io::Result<()> {
        let (to, len) = (range.as_ptr() as u64, size_of_val(page) as u64);
        let mut copy = Copy { to, from: page.as_ptr() as u64, len, mode: 0, copied: 0 };
        self.call(UFFDIO_COPY(), &mut copy)?;
        self.call(UFFDIO_UNREGISTER(), &mut Range { start: to, len })
    }

    /// Whether a thread waits for a missing page; blocks for at most `limit`.
    pub(crate) fn faulted(&self, limit: Duration) -> io::Result<bool> {
        let mut wanted = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: the kernel reads and writes the one structure, which outlives the call.
        match unsafe { libc::poll(&raw mut wanted, 1, limit.as_millis() as libc::c_int) } {
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => Ok(false),
            -1 => Err(io::Error::last_os_error()),
            ready => Ok(ready > 0),
        }
    }

    /// Makes the ioctl `request`, which takes a `T`.
    fn call<T>(&self, request: libc::c_ulong, argument: &mut T) -> io::Result<()> {
        // SAFETY: the callers above pair each request with its structure and pass addresses of live mappings.
        match unsafe { ioctl_with_mut_ref(&self.0, request, argument) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
