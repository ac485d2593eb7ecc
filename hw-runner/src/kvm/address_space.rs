//! KVM's address spaces: vCPUs in system management mode (SMM) can have a set of memslots of their own.
//!
//! User space moves a vCPU between the two with `KVM_SET_VCPU_EVENTS`, without an SMI and without changing its registers.
//! So a guest whose page tables are the same in both reaches a gfn through the memslot of either.

use crate::error::MachineError;
use kvm_bindings::{KVM_CAP_MULTI_ADDRESS_SPACE, KVM_CAP_X86_SMM};
use kvm_ioctls::VmFd;

/// The mode that chooses the memslots. The discriminant is KVM's `as_id`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AddressSpace {
    /// Every mode but SMM.
    #[default]
    Normal,
    /// System management mode.
    Smm,
}

impl AddressSpace {
    /// Both, ordered by `as_id`.
    pub(crate) const ALL: [AddressSpace; 2] = [Self::Normal, Self::Smm];

    /// The number that ioctls use for memslot `id` of this address space.
    pub(crate) const fn slot(self, id: u32) -> u32 {
        id | (self as u32) << 16
    }

    /// Checks that `fd` has both address spaces.
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
