//! KVM ioctls that kvm-ioctls lacks or marks unsafe.
#![expect(unsafe_code, reason = "raw ioctls have no safe wrapper")]

use crate::error::{Doing, MachineError};
use crate::host::memory::Pages;
use gpa_model::Gpa;
use kvm_bindings::{
    kvm_clear_dirty_log, kvm_clear_dirty_log__bindgen_ty_1, kvm_create_guest_memfd, kvm_ioeventfd,
    kvm_pre_fault_memory, kvm_userspace_memory_region, kvm_userspace_memory_region2,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};

/// `_IOWR(KVMIO, 0xc0, struct kvm_clear_dirty_log)`.
const KVM_CLEAR_DIRTY_LOG: libc::c_ulong = 0xc018_aec0;
/// `_IOWR(KVMIO, 0xd5, struct kvm_pre_fault_memory)`.
const KVM_PRE_FAULT_MEMORY: libc::c_ulong = 0xc040_aed5;
/// `_IOW(KVMIO, 0x79, struct kvm_ioeventfd)`.
const KVM_IOEVENTFD: libc::c_ulong = 0x4040_ae79;
/// `_IO(KVMIO, 0xce)`.
const KVM_GET_STATS_FD: libc::c_ulong = 0xaece;

/// The version of KVM's interface since Linux 2.6.22.
const API_VERSION: i32 = 12;

/// Opens `/dev/kvm`.
pub(crate) fn open() -> Result<Kvm, MachineError> {
    let kvm = Kvm::new().map_err(io::Error::from).map_err(MachineError::Open)?;
    if kvm.get_api_version() != API_VERSION {
        return Err(MachineError::Missing("version 12 of its interface (KVM_GET_API_VERSION)"));
    }
    Ok(kvm)
}

/// Creates a VM of type `vm_type`.
pub(crate) fn create_vm(kvm: &Kvm, vm_type: u32) -> Result<VmFd, MachineError> {
    match kvm.create_vm_with_type(vm_type.into()).map_err(io::Error::from) {
        Ok(fd) => Ok(fd),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST)) => {
            Err(MachineError::Busy(error))
        }
        Err(error) => Err(error).doing("create a VM"),
    }
}

/// A KVM memslot: one range of gfns over host pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    pub(crate) slot: u32,
    pub(crate) flags: u32,
    pub(crate) gpa: Gpa,
    /// Which mapping of the pages.
    pub(crate) mapping: usize,
    pub(crate) page: usize,
    pub(crate) pages: usize,
}

/// A change of one memslot, which can be made from any thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RegionChange(kvm_userspace_memory_region);

impl RegionChange {
    /// Creates, moves or re-flags a memslot over `memory`, which must live as long as the VM can run.
    pub(crate) fn set(memory: &Pages, region: Region) -> Self {
        assert!(region.pages > 0 && region.page + region.pages <= memory.len(), "{region:?} leaves its memory");
        let Region { slot, flags, gpa, mapping, page, pages } = region;
        Self(kvm_userspace_memory_region {
            slot,
            flags,
            guest_phys_addr: gpa.raw(),
            memory_size: Gpa::from_page(pages as u64).raw(),
            userspace_addr: memory.hva(mapping, page),
        })
    }

    /// Deletes memslot `slot`.
    pub(crate) fn delete(slot: u32) -> Self {
        Self(kvm_userspace_memory_region { slot, ..Default::default() })
    }

    /// Makes the change.
    pub(crate) fn make(self, vm: &VmFd) -> io::Result<()> {
        // SAFETY: a region of no bytes takes memory away from the guest. The pages of any other region lie in a
        // `Pages`, which this process only accesses atomically.
        unsafe { vm.set_user_memory_region(self.0) }.map_err(io::Error::from)
    }
}

/// Creates, moves or re-flags a memslot over `memory`, which must live as long as the VM can run.
pub(crate) fn set_region(vm: &VmFd, memory: &Pages, region: Region) -> io::Result<()> {
    RegionChange::set(memory, region).make(vm)
}

/// Like [`set_region`], with `guest_memfd`, from its start, for the private pages.
pub(crate) fn set_region_with_guest_memfd(
    vm: &VmFd,
    memory: &Pages,
    region: Region,
    guest_memfd: &File,
) -> io::Result<()> {
    let RegionChange(kvm_userspace_memory_region { slot, flags, guest_phys_addr, memory_size, userspace_addr }) =
        RegionChange::set(memory, region);
    let guest_memfd = guest_memfd.as_raw_fd() as u32;
    let region = kvm_userspace_memory_region2 {
        slot,
        flags,
        guest_phys_addr,
        memory_size,
        userspace_addr,
        guest_memfd,
        ..Default::default()
    };
    // SAFETY: as in `RegionChange::make`; the pages of a guest_memfd are not mapped in any process.
    unsafe { vm.set_user_memory_region2(region) }.map_err(io::Error::from)
}

/// `KVM_CREATE_GUEST_MEMFD`.
pub(crate) fn create_guest_memfd(vm: &VmFd, size: u64) -> io::Result<File> {
    let fd = vm.create_guest_memfd(kvm_create_guest_memfd { size, ..Default::default() }).map_err(io::Error::from)?;
    // SAFETY: the file descriptor is new, and only this value owns it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Deletes memslot `slot`.
pub(crate) fn delete_region(vm: &VmFd, slot: u32) -> io::Result<()> {
    RegionChange::delete(slot).make(vm)
}

/// `KVM_CLEAR_DIRTY_LOG` for the first `pages` pages of a memslot, at most 64: clears the pages whose bit is
/// set.
pub(crate) fn clear_dirty_log(vm: &VmFd, slot: u32, pages: u32, mut bits: u64) -> io::Result<()> {
    assert!(pages <= u64::BITS, "one word holds {} pages, not {pages}", u64::BITS);
    let dirty_bitmap = (&raw mut bits).cast();
    let log = kvm_clear_dirty_log {
        slot,
        num_pages: pages,
        first_page: 0,
        __bindgen_anon_1: kvm_clear_dirty_log__bindgen_ty_1 { dirty_bitmap },
    };
    // SAFETY: KVM reads `log` and, of the bitmap, one word for up to 64 pages; both outlive the call.
    match unsafe { libc::ioctl(vm.as_raw_fd(), KVM_CLEAR_DIRTY_LOG as _, &raw const log) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `KVM_PRE_FAULT_MEMORY` for one page.
pub(crate) fn pre_fault(vcpu: &VcpuFd, gpa: Gpa) -> io::Result<()> {
    let mut range = kvm_pre_fault_memory { gpa: gpa.raw(), size: Gpa::from_page(1).raw(), ..Default::default() };
    // SAFETY: KVM reads and writes `range`, which outlives the call.
    match unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_PRE_FAULT_MEMORY as _, &raw mut range) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `KVM_GET_STATS_FD` of a VM or a vCPU.
pub(crate) fn stats_file(of: &impl AsRawFd) -> io::Result<File> {
    // SAFETY: the ioctl takes no argument and returns a new file descriptor, which only this value owns.
    match unsafe { libc::ioctl(of.as_raw_fd(), KVM_GET_STATS_FD as _, 0) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: as above.
        fd => Ok(unsafe { File::from_raw_fd(fd) }),
    }
}

/// An eventfd that KVM signals when a guest writes to an address.
#[derive(Debug)]
pub(crate) struct Ioeventfd {
    eventfd: File,
    gpa: Gpa,
}

impl Ioeventfd {
    /// How often it was signalled since the last call.
    pub(crate) fn take_count(&self) -> io::Result<u64> {
        let mut times = [0; size_of::<u64>()];
        match (&self.eventfd).read(&mut times) {
            Ok(_) => Ok(u64::from_ne_bytes(times)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }
}

/// `KVM_IOEVENTFD`: a write of any length to `gpa` signals the eventfd, unless a memslot takes it.
pub(crate) fn assign_ioeventfd(vm: &VmFd, gpa: Gpa) -> io::Result<Ioeventfd> {
    // SAFETY: the call takes no pointer and returns a new file descriptor.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the file descriptor is new, and only this value owns it.
    let ioeventfd = Ioeventfd { eventfd: unsafe { File::from_raw_fd(fd) }, gpa };
    set_ioeventfd(vm, &ioeventfd, 0).map(|()| ioeventfd)
}

/// `KVM_IOEVENTFD` with the flag that removes it.
pub(crate) fn deassign_ioeventfd(vm: &VmFd, ioeventfd: &Ioeventfd) -> io::Result<()> {
    set_ioeventfd(vm, ioeventfd, 1 << kvm_bindings::kvm_ioeventfd_flag_nr_deassign)
}

fn set_ioeventfd(vm: &VmFd, ioeventfd: &Ioeventfd, flags: u32) -> io::Result<()> {
    let Ioeventfd { eventfd, gpa } = ioeventfd;
    let ioeventfd = kvm_ioeventfd { addr: gpa.raw(), fd: eventfd.as_raw_fd(), flags, ..Default::default() };
    // SAFETY: KVM reads the structure, which outlives the call, and takes a reference to the eventfd.
    match unsafe { libc::ioctl(vm.as_raw_fd(), KVM_IOEVENTFD as _, &raw const ioeventfd) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
