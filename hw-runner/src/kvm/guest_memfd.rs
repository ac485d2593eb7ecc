//! guest_memfd: memory of a guest that its host cannot map, and the attribute that says which gfns are backed by it.
//!
//! In a VM of type `KVM_X86_SW_PROTECTED_VM` the guest sees the same memory wherever it is; KVM takes a page from the guest_memfd if
//! its gfn is private, and from the hva otherwise (`kvm_faultin_pfn_private()`). No processor has to encrypt anything for that.

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

/// The type of VM that has it.
pub(crate) const VM_TYPE: u32 = KVM_X86_SW_PROTECTED_VM;

/// That `kvm` has such VMs.
pub(crate) fn require(kvm: &Kvm) -> Result<(), MachineError> {
    let has = |cap: u32, bit: u32| kvm.check_extension_raw(cap.into()) & 1 << bit != 0;
    if has(KVM_CAP_VM_TYPES, VM_TYPE) { Ok(()) } else { Err(MachineError::Missing("KVM_X86_SW_PROTECTED_VM")) }
}

/// That a VM of theirs has what it is for.
pub(crate) fn require_in(vm: &VmFd) -> Result<(), MachineError> {
    let has = |cap: u32| vm.check_extension_raw(cap.into()) > 0;
    match (has(KVM_CAP_GUEST_MEMFD), has(KVM_CAP_MEMORY_ATTRIBUTES)) {
        (false, _) => Err(MachineError::Missing("KVM_CAP_GUEST_MEMFD")),
        (_, false) => Err(MachineError::Missing("KVM_CAP_MEMORY_ATTRIBUTES")),
        _ => Ok(()),
    }
}

/// The memory of one memslot.
#[derive(Debug)]
pub(crate) struct GuestMemfd(File);

impl GuestMemfd {
    /// `pages` pages of zeros.
    pub(crate) fn new(vm: &VmFd, pages: usize) -> io::Result<Self> {
        ioctl::create_guest_memfd(vm, (pages * PAGE_BYTES) as u64).map(Self)
    }

    /// Create the memslot `region` of `memory`, whose private pages are this one's instead.
    pub(crate) fn set_region(&self, vm: &VmFd, memory: &Pages, region: Region) -> io::Result<()> {
        let flags = region.flags | KVM_MEM_GUEST_MEMFD;
        ioctl::set_region_with_guest_memfd(vm, memory, Region { flags, ..region }, &self.0)
    }

    /// Discard `pages` pages from number `page` on.
    pub(crate) fn punch_hole(&self, page: usize, pages: usize) -> io::Result<()> {
        crate::host::reclaim::punch_hole_into(&self.0, page, pages)
    }
}

/// `pages` pages from `gpa` on are private from now on, or no more.
pub(crate) fn set_private(vm: &VmFd, gpa: Gpa, pages: usize, private: bool) -> io::Result<()> {
    let size = Gpa::from_page(pages as u64).raw();
    let attributes = if private { KVM_MEMORY_ATTRIBUTE_PRIVATE.into() } else { 0 };
    let attributes = kvm_memory_attributes { address: gpa.raw(), size, attributes, flags: 0 };
    vm.set_memory_attributes(attributes).map_err(io::Error::from)
}
