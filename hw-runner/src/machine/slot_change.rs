//! Memslot changes in two halves, between which vCPUs run, on kernels that can wait there.

use super::Machine;
use crate::error::MachineError;
use crate::kvm::memslots::{Backing, Changed};
use crate::kvm::slot_window::SlotWindow;
use gpa_model::{Exit, SlotChange, SlotId, VmConfig};
use std::sync::Arc;

/// A change whose second half is due.
#[derive(Debug)]
pub(super) struct OpenChange {
    window: SlotWindow,
    changed: Changed,
}

impl Machine {
    /// Makes the first half.
    pub(super) fn begin_change(&mut self, vm: &VmConfig, id: SlotId, change: SlotChange) -> Result<Exit, MachineError> {
        if !SlotWindow::is_possible() {
            return Ok(Exit::Unsupported);
        }
        let kvm = Backing { fd: &self.fd, memory: &self.memory, vm };
        let (ioctl, changed) = self.memslots.begin_change(kvm, id, change);
        let fd = Arc::clone(&self.fd);
        let window = SlotWindow::open(move || ioctl.make(&fd))?;
        self.open_change = Some(OpenChange { window, changed });
        // From now on an access may be retried for ever, so `KVM_RUN` must return regularly.
        self.rouse()?;
        Ok(Exit::Done)
    }

    /// Makes the second half, if one is due.
    pub(super) fn end_change(&mut self) -> Result<Exit, MachineError> {
        if let Some(OpenChange { window, changed }) = self.open_change.take() {
            // Even if it fails, the memslot may exist, and must be deleted later.
            self.memslots.end_change(changed);
            window.close()?;
        }
        Ok(Exit::Done)
    }
}
