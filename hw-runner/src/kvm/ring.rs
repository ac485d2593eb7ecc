//! Dirty rings: each vCPU lists the pages that it dirties, and user space takes the entries and resets them.
#![expect(unsafe_code, reason = "maps memory that KVM shares")]

use gpa_model::Gpa;
use kvm_ioctls::VcpuFd;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Entries of a ring that no program can fill.
pub(crate) const AMPLE: usize = 4096;
/// Entries of the smallest ring: one page (`kvm_vm_ioctl_enable_dirty_log_ring()`).
pub(crate) const LEAST: usize = 256;
/// Entries of the smallest ring at which KVM stops the vCPU. It reserves the others
/// (`KVM_DIRTY_RING_RSVD_ENTRIES`).
pub(crate) const ROOM: usize = LEAST - 64;
/// Flag: KVM has filled the entry.
const DIRTY: u32 = 1;
/// Flag: user space has taken the entry.
const TAKEN: u32 = 2;

/// `struct kvm_dirty_gfn`.
#[repr(C)]
struct Entry {
    flags: AtomicU32,
    slot: u32,
    offset: u64,
}

/// The capability to enable before the first vCPU, with the [`bytes`] of a ring as its argument.
pub(crate) const CAPABILITY: u32 = kvm_bindings::KVM_CAP_DIRTY_LOG_RING_ACQ_REL;

/// The size of a ring of `entries` entries.
pub(crate) const fn bytes(entries: usize) -> usize {
    entries * size_of::<Entry>()
}

/// The dirty ring of one vCPU.
#[derive(Debug)]
pub(crate) struct Ring {
    start: NonNull<Entry>,
    entries: usize,
    next: usize,
}

// SAFETY: only this value accesses the mapping, which it owns.
unsafe impl Send for Ring {}

impl Ring {
    /// Maps the ring of `vcpu`, which has `entries` entries.
    pub(crate) fn new(vcpu: &VcpuFd, entries: usize) -> io::Result<Self> {
        let offset = Gpa::from_page(kvm_bindings::KVM_DIRTY_LOG_PAGE_OFFSET.into()).raw() as libc::off_t;
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let (bytes, fd) = (bytes(entries), vcpu.as_raw_fd());
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, rights, libc::MAP_SHARED, fd, offset) };
        crate::host::memory::pointer(start).map(|start| Self { start: start.cast(), entries, next: 0 })
    }

    /// Takes all entries: each a KVM memslot and a page number in it.
    pub(crate) fn take(&mut self, mut entry: impl FnMut(u32, u64)) {
        loop {
            // SAFETY: the index is below the number of entries, all of which are mapped. KVM writes an entry
            // before its flag.
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
        // SAFETY: this value owns the mapping, which has this length.
        unsafe { libc::munmap(self.start.as_ptr().cast(), bytes(self.entries)) };
    }
}
