//! The ioctls of KVM that programs need (`include/uapi/linux/kvm.h`): numbers, and arguments that `kvm-bindings` has no plain form of.

use kvm_bindings::{
    kvm_clear_dirty_log, kvm_dirty_log, kvm_enable_cap, kvm_pre_fault_memory, kvm_userspace_memory_region,
};

const KVMIO: u64 = 0xae;
const WRITE: u64 = 1;
const READ: u64 = 2;

/// `_IOC()`.
const fn number(direction: u64, nr: u64, bytes: usize) -> u64 {
    direction << 30 | (bytes as u64) << 16 | KVMIO << 8 | nr
}

/// `KVM_SET_USER_MEMORY_REGION`.
pub(super) const SET_USER_MEMORY_REGION: u64 = number(WRITE, 0x46, size_of::<kvm_userspace_memory_region>());
/// `KVM_GET_DIRTY_LOG`.
pub(super) const GET_DIRTY_LOG: u64 = number(WRITE, 0x42, size_of::<kvm_dirty_log>());
/// `KVM_CLEAR_DIRTY_LOG`.
pub(super) const CLEAR_DIRTY_LOG: u64 = number(WRITE | READ, 0xc0, size_of::<kvm_clear_dirty_log>());
/// `KVM_ENABLE_CAP`.
pub(super) const ENABLE_CAP: u64 = number(WRITE, 0xa3, size_of::<kvm_enable_cap>());
/// `KVM_PRE_FAULT_MEMORY`.
pub(super) const PRE_FAULT_MEMORY: u64 = number(WRITE | READ, 0xd5, size_of::<kvm_pre_fault_memory>());
