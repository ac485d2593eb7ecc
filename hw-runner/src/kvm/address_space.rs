//! KVM's address spaces: a VM may have one set of memslots for vCPUs in system management mode and another for all others.
//!
//! A vCPU need not take an SMI to change between them: user space sets the mode with the vCPU's events, and leaves its registers
//! as they are. So one guest, under page tables that are the same in both, reaches a gfn through one memslot or the other.

use crate::error::MachineError;
use kvm_bindings::{KVM_CAP_MULTI_ADDRESS_SPACE, KVM_CAP_X86_SMM};
use kvm_ioctls::VmFd;

/// The mode that decides which memslots count. Its number is KVM's `as_id`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AddressSpace {
    /// That of every mode but one.
    #[default]
    Normal,
    /// That of system management mode.
    Smm,
}

impl AddressSpace {
    /// Both, in the order of their numbers.
    pub(crate) const ALL: [AddressSpace; 2] = [Self::Normal, Self::Smm];

    /// What ioctls call memslot `id` of this address space.
    pub(crate) const fn slot(self, id: u32) -> u32 {
        id | (self as u32) << 16
    }

    /// That `fd` has both.
    pub(crate) fn require_all(fd: &VmFd) -> Result<(), MachineError> {
        if fd.check_extension_raw(KVM_CAP_X86_SMM.into()) < 1 {
            return Err(MachineError::Missing("KVM_CAP_X86_SMM"));
        }
        if fd.check_extension_raw(KVM_CAP_MULTI_ADDRESS_SPACE.into()) < Self::ALL.len() as i32 {
            return Err(MachineError::Missing("KVM_CAP_MULTI_ADDRESS_SPACE of two address spaces"));
        }
        Ok(())
    }
}
