//! KVM ioctls that kvm-ioctls lacks or marks unsafe.
#![expect(unsafe_code, reason = "raw ioctls have no safe wrapper")]

use crate::error::{Doing, MachineError};
use crate::host::memory::Pages;
use gpa_model::Gpa;
use kvm_bindings::{
    KVMIO, kvm_clear_dirty_log, kvm_clear_dirty_log__bindgen_ty_1, kvm_create_guest_memfd, kvm_pre_fault_memory,
    kvm_userspace_memory_region, kvm_userspace_memory_region2,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use vmm_sys_util::ioctl::{ioctl, ioctl_with_mut_ref, ioctl_with_ref};
use vmm_sys_util::{ioctl_io_nr, ioctl_iowr_nr};

ioctl_iowr_nr!(KVM_CLEAR_DIRTY_LOG, KVMIO, 0xc0, kvm_clear_dirty_log);
ioctl_iowr_nr!(KVM_PRE_FAULT_MEMORY, KVMIO, 0xd5, kvm_pre_fault_memory);
ioctl_io_nr!(KVM_GET_STATS_FD, KVMIO, 0xce);
ioctl_io_nr!(KVM_RESET_DIRTY_RINGS, KVMIO, 0xc7);

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
    match unsafe { ioctl_with_ref(vm, KVM_CLEAR_DIRTY_LOG(), &log) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `KVM_PRE_FAULT_MEMORY` for one page.
pub(crate) fn pre_fault(vcpu: &VcpuFd, gpa: Gpa) -> io::Result<()> {
    let mut range = kvm_pre_fault_memory { gpa: gpa.raw(), size: Gpa::from_page(1).raw(), ..Default::default() };
    // SAFETY: KVM reads and writes `range`, which outlives the call.
    match unsafe { ioctl_with_mut_ref(vcpu, KVM_PRE_FAULT_MEMORY(), &mut range) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `KVM_GET_STATS_FD` of a VM or a vCPU.
pub(crate) fn stats_file(of: &impl AsRawFd) -> io::Result<File> {
    // SAFETY: the ioctl takes no argument and returns a new file descriptor, which only this value owns.
    match unsafe { ioctl(of, KVM_GET_STATS_FD()) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: as above.
        fd => Ok(unsafe { File::from_raw_fd(fd) }),
    }
}

/// `KVM_RESET_DIRTY_RINGS`: write-protects the pages of all entries that were taken, and frees the entries.
pub(crate) fn reset_dirty_rings(vm: &VmFd) -> io::Result<()> {
    // SAFETY: the ioctl takes no argument.
    match unsafe { ioctl(vm, KVM_RESET_DIRTY_RINGS()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
