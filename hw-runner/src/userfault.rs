//! A userfaultfd: page faults of a range of addresses are answered by this process.
#![expect(unsafe_code, reason = "raw ioctls have no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::NonNull;

// `_IOC(direction, 0xaa, number, size)` of the structures below.
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_UNREGISTER: libc::c_ulong = 0x8010_aa01;
const UFFDIO_COPY: libc::c_ulong = 0xc028_aa03;
const UFFDIO_WRITEPROTECT: libc::c_ulong = 0xc018_aa06;

const API: u64 = 0xaa;
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

/// The file descriptor. Ranges that are registered with it are released when it is dropped.
#[derive(Debug)]
pub(crate) struct Userfault(File);

/// A range whose missing pages this process fills in.
#[derive(Debug)]
pub(crate) struct Registered<'a> {
    by: &'a Userfault,
    start: u64,
    bytes: usize,
}

impl Userfault {
    /// One that can write-protect every kind of memory.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: the call takes flags and returns a new file descriptor.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the file descriptor is new, and ours alone.
        let this = Self(unsafe { File::from_raw_fd(fd as _) });
        let features = FEATURE_WRITE_PROTECT | FEATURE_WRITE_PROTECT_SHARED;
        this.call(UFFDIO_API, &mut Api { api: API, features, ioctls: 0 })?;
        Ok(this)
    }

    /// Write-protect a range, and let it go again.
    pub(crate) fn write_protect_and_release(&self, range: NonNull<u8>, bytes: usize) -> io::Result<()> {
        let (start, len) = (range.as_ptr() as u64, bytes as u64);
        self.call(UFFDIO_REGISTER, &mut Register { start, len, mode: MODE_WRITE_PROTECT, ioctls: 0 })?;
        self.call(UFFDIO_WRITEPROTECT, &mut WriteProtect { start, len, mode: 1 })?;
        self.call(UFFDIO_WRITEPROTECT, &mut WriteProtect { start, len, mode: 0 })?;
        self.call(UFFDIO_UNREGISTER, &mut [start, len])
    }

    /// From now on missing pages of a range are this process's to fill in; whoever touches one before waits for ever.
    pub(crate) fn register_missing(&self, range: NonNull<u8>, bytes: usize) -> io::Result<Registered<'_>> {
        let (start, len) = (range.as_ptr() as u64, bytes as u64);
        self.call(UFFDIO_REGISTER, &mut Register { start, len, mode: MODE_MISSING, ioctls: 0 })?;
        Ok(Registered { by: self, start, bytes })
    }

    /// `argument` is the structure that `request` is for.
    fn call<T>(&self, request: libc::c_ulong, argument: &mut T) -> io::Result<()> {
        // SAFETY: callers above pair each request with its structure, and ranges are addresses of mappings that live.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), request as _, &raw mut *argument) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Registered<'_> {
    /// Put zeroed pages in, and let the range go.
    pub(crate) fn fill(self) -> io::Result<()> {
        let zeros = vec![0u8; self.bytes];
        let (to, len) = (self.start, self.bytes as u64);
        let mut copy = Copy { to, from: zeros.as_ptr() as u64, len, mode: 0, copied: 0 };
        self.by.call(UFFDIO_COPY, &mut copy)?;
        self.by.call(UFFDIO_UNREGISTER, &mut [to, len])
    }
}
