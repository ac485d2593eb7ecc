//! Capabilities that are enabled before a VM has vCPUs.

use crate::error::{Doing, MachineError};
use crate::kvm::ring;
use kvm_bindings::kvm_enable_cap;
use kvm_ioctls::{Cap, VmFd};

/// `KVM_GET_DIRTY_LOG` does not clear the log; `KVM_CLEAR_DIRTY_LOG` clears it page by page.
pub(super) fn enable_manual_protect(fd: &VmFd) -> Result<(), MachineError> {
    let cap = kvm_bindings::KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2;
    if fd.check_extension_raw(cap.into()) == 0 {
        return Err(MachineError::Missing("KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2"));
    }
    if !fd.check_extension(Cap::ReadonlyMem) {
        return Err(MachineError::Missing("KVM_CAP_READONLY_MEM"));
    }
    let mut enable = kvm_enable_cap { cap, ..Default::default() };
    enable.args[0] = kvm_bindings::KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE.into();
    fd.enable_cap(&enable).doing("enable KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2")
}

/// Enables dirty rings, of the least size if `small` and possible. Returns their number of entries.
pub(super) fn enable_rings(fd: &VmFd, small: bool) -> Result<usize, MachineError> {
    let cap = ring::CAPABILITY;
    if usize::try_from(fd.check_extension_raw(cap.into())).is_ok_and(|most| most < ring::bytes(ring::AMPLE)) {
        return Err(MachineError::Missing("KVM_CAP_DIRTY_LOG_RING_ACQ_REL"));
    }
    let mut enable = kvm_enable_cap { cap, ..Default::default() };
    enable.args[0] = ring::bytes(ring::LEAST) as u64;
    // With PML KVM reserves as many entries as the processor logs at once, which is more than the smallest ring
    // has.
    if small && fd.enable_cap(&enable).is_ok() {
        return Ok(ring::LEAST);
    }
    enable.args[0] = ring::bytes(ring::AMPLE) as u64;
    fd.enable_cap(&enable).doing("enable KVM_CAP_DIRTY_LOG_RING_ACQ_REL").map(|()| ring::AMPLE)
}

/// Enables local APICs in KVM, without any other interrupt controller.
pub(super) fn enable_local_apics(fd: &VmFd) -> Result<(), MachineError> {
    const PINS: u64 = 24;
    let cap = kvm_bindings::KVM_CAP_SPLIT_IRQCHIP;
    if fd.check_extension_raw(cap.into()) < 1 {
        return Err(MachineError::Missing("KVM_CAP_SPLIT_IRQCHIP"));
    }
    let mut enable = kvm_enable_cap { cap, ..Default::default() };
    enable.args[0] = PINS;
    fd.enable_cap(&enable).doing("enable KVM_CAP_SPLIT_IRQCHIP")
}

/// Disables the quirk that zaps everything when a memslot goes: KVM then zaps by the memslot's rmap. Returns
/// whether it can.
pub(super) fn zap_slots_alone(fd: &VmFd) -> bool {
    /// `KVM_CAP_DISABLE_QUIRKS2`, and `KVM_X86_QUIRK_SLOT_ZAP_ALL`.
    const DISABLE_QUIRKS: u32 = 213;
    const SLOT_ZAP_ALL: u64 = 0x80;
    let quirks = fd.check_extension_raw(DISABLE_QUIRKS.into());
    let mut disable = kvm_enable_cap { cap: DISABLE_QUIRKS, ..Default::default() };
    disable.args[0] = SLOT_ZAP_ALL;
    quirks > 0 && quirks as u64 & SLOT_ZAP_ALL != 0 && fd.enable_cap(&disable).is_ok()
}
