//! guest_memfd: guest memory that the host cannot map, and the memory attribute that selects it per gfn.
//!
//! In a VM of type `KVM_X86_SW_PROTECTED_VM` KVM takes the page of a private gfn from the guest_memfd, and that of a shared gfn
//! from the hva (`kvm_faultin_pfn_private()`). It needs no memory encryption.

use crate::error::MachineError;
use crate::host::memory::{PAGE_BYTES, Pages};
use crate::kvm::ioctl::{self, Region};
use gpa_model::Gpa;
use kvm_bindings::{
    KVM_CAP_GUEST_MEMFD, KVM_CAP_MEMORY_ATTRIBUTES, KVM_CAP_VM_TYPES, KVM_MEM_GUEST_MEMFD,
    KVM_MEMORY_ATTRIBUTE_PRIVATE, KVM_X86_SW_PROTECTED_VM, kvm_memory_attributes,
};
use kvm_ioctls::{Kvm, VmFd};
use std::fs::File;
use std::io;

/// The type of VM that has private memory.
pub(crate) const VM_TYPE: u32 = KVM_X86_SW_PROTECTED_VM;

/// Checks that `kvm` offers such VMs.
pub(crate) fn require(kvm: &Kvm) -> Result<(), MachineError> {
    let has = |cap: u32, bit: u32| kvm.check_extension_raw(cap.into()) & 1 << bit != 0;
    if has(KVM_CAP_VM_TYPES, VM_TYPE) { Ok(()) } else { Err(MachineError::Missing("KVM_X86_SW_PROTECTED_VM")) }
}

/// Checks that such a VM offers guest_memfd and memory attributes.
pub(crate) fn require_in(vm: &VmFd) -> Result<(), MachineError> {
    let has = |cap: u32| vm.check_extension_raw(cap.into()) > 0;
    match (has(KVM_CAP_GUEST_MEMFD), has(KVM_CAP_MEMORY_ATTRIBUTES)) {
        (false, _) => Err(MachineError::Missing("KVM_CAP_GUEST_MEMFD")),
        (_, false) => Err(MachineError::Missing("KVM_CAP_MEMORY_ATTRIBUTES")),
        _ => Ok(()),
    }
}

/// The guest_memfd of one memslot.
#[derive(Debug)]
pub(crate) struct GuestMemfd(File);

impl GuestMemfd {
    /// A guest_memfd of `pages` zeroed pages.
    pub(crate) fn new(vm: &VmFd, pages: usize) -> io::Result<Self> {
        ioctl::create_guest_memfd(vm, (pages * PAGE_BYTES) as u64).map(Self)
    }

    /// Creates the memslot `region` over `memory`, with this guest_memfd for its private pages.
    pub(crate) fn set_region(&self, vm: &VmFd, memory: &Pages, region: Region) -> io::Result<()> {
        let flags = region.flags | KVM_MEM_GUEST_MEMFD;
        ioctl::set_region_with_guest_memfd(vm, memory, Region { flags, ..region }, &self.0)
    }

    /// Discards `pages` pages, starting with number `page`.
    pub(crate) fn punch_hole(&self, page: usize, pages: usize) -> io::Result<()> {
        crate::host::reclaim::punch_hole_into(&self.0, page, pages)
    }
}

/// Makes `pages` pages, starting at `gpa`, private or shared.
pub(crate) fn set_private(vm: &VmFd, gpa: Gpa, pages: usize, private: bool) -> io::Result<()> {
    let size = Gpa::from_page(pages as u64).raw();
    let attributes = if private { KVM_MEMORY_ATTRIBUTE_PRIVATE.into() } else { 0 };
    let attributes = kvm_memory_attributes { address: gpa.raw(), size, attributes, flags: 0 };
    vm.set_memory_attributes(attributes).map_err(io::Error::from)
}
