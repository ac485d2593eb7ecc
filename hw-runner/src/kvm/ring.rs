//! Dirty rings: each vCPU lists the pages it makes dirty, and user space takes the entries and gives their places back.
#![expect(unsafe_code, reason = "maps memory that KVM shares, and makes raw ioctls")]

use gpa_model::Gpa;
use kvm_ioctls::{VcpuFd, VmFd};
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// `_IO(KVMIO, 0xc7)`.
const KVM_RESET_DIRTY_RINGS: libc::c_ulong = 0xaec7;
/// Entries of a ring that no program can fill.
pub(crate) const AMPLE: usize = 4096;
/// Entries of the smallest ring there is: a page of them (`kvm_vm_ioctl_enable_dirty_log_ring()`).
pub(crate) const LEAST: usize = 256;
/// How many of them there are when its vCPU is stopped. KVM keeps the others back (`KVM_DIRTY_RING_RSVD_ENTRIES`).
pub(crate) const ROOM: usize = LEAST - 64;
/// KVM has filled the entry in.
const DIRTY: u32 = 1;
/// User space has taken it.
const TAKEN: u32 = 2;

/// `struct kvm_dirty_gfn`.
#[repr(C)]
struct Entry {
    flags: AtomicU32,
    slot: u32,
    offset: u64,
}

/// The capability to ask for, with the [`bytes`] of a ring as its argument, before the first vCPU is made.
pub(crate) const CAPABILITY: u32 = kvm_bindings::KVM_CAP_DIRTY_LOG_RING_ACQ_REL;

/// Bytes of a ring of so many `entries`.
pub(crate) const fn bytes(entries: usize) -> usize {
    entries * size_of::<Entry>()
}

/// The ring of one vCPU.
#[derive(Debug)]
pub(crate) struct Ring {
    start: NonNull<Entry>,
    entries: usize,
    next: usize,
}

// SAFETY: the mapping belongs to the value, which alone moves through it.
unsafe impl Send for Ring {}

impl Ring {
    /// The ring of `vcpu`, of so many `entries`.
    pub(crate) fn new(vcpu: &VcpuFd, entries: usize) -> io::Result<Self> {
        let offset = Gpa::from_page(kvm_bindings::KVM_DIRTY_LOG_PAGE_OFFSET.into()).raw() as libc::off_t;
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let (bytes, fd) = (bytes(entries), vcpu.as_raw_fd());
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, rights, libc::MAP_SHARED, fd, offset) };
        crate::host::memory::pointer(start).map(|start| Self { start: start.cast(), entries, next: 0 })
    }

    /// Take every entry there is: a memslot of KVM and the number of a page in it.
    pub(crate) fn take(&mut self, mut entry: impl FnMut(u32, u64)) {
        loop {
            // SAFETY: the index is below the number of entries, all of which are mapped. KVM writes an entry before its flag.
            let at = unsafe { self.start.add(self.next).as_ref() };
            if at.flags.load(Ordering::Acquire) & DIRTY == 0 {
                return;
            }
            entry(at.slot, at.offset);
            at.flags.store(TAKEN, Ordering::Release);
            self.next = (self.next + 1) % self.entries;
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and of this length.
        unsafe { libc::munmap(self.start.as_ptr().cast(), bytes(self.entries)) };
    }
}

/// Give back the places of all entries that were taken: their pages are write-protected again.
pub(crate) fn reset(vm: &VmFd) -> io::Result<()> {
    // SAFETY: the ioctl takes no argument.
    match unsafe { libc::ioctl(vm.as_raw_fd(), KVM_RESET_DIRTY_RINGS as _, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
