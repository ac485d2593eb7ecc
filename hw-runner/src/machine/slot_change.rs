//! Memslot changes in two halves, between which vCPUs run, where KVM can be told to stay in the middle.

use super::Machine;
use crate::error::MachineError;
use crate::kvm::memslots::{Backing, Changed};
use crate::kvm::slot_window::SlotWindow;
use gpa_model::{Exit, SlotChange, SlotId, VmConfig};
use std::sync::Arc;

/// A change whose second half is to come.
#[derive(Debug)]
pub(super) struct OpenChange {
    window: SlotWindow,
    changed: Changed,
}

impl Machine {
    /// The first half.
    pub(super) fn begin_change(&mut self, vm: &VmConfig, id: SlotId, change: SlotChange) -> Result<Exit, MachineError> {
        if !SlotWindow::is_possible() {
            return Ok(Exit::Unsupported);
        }
        let kvm = Backing { fd: &self.fd, memory: &self.memory, vm };
        let (ioctl, changed) = self.memslots.begin_change(kvm, id, change);
        let fd = Arc::clone(&self.fd);
        let window = SlotWindow::open(move || ioctl.make(&fd))?;
        self.open_change = Some(OpenChange { window, changed });
        // What cannot come to an end now tries again, and who tries has to be looked at.
        self.rouse()?;
        Ok(Exit::Done)
    }

    /// The second half, if there is one to come.
    pub(super) fn end_change(&mut self) -> Result<Exit, MachineError> {
        if let Some(OpenChange { window, changed }) = self.open_change.take() {
            // Whatever becomes of it, what KVM may have is what is to be cleared away.
            self.memslots.end_change(changed);
            window.close()?;
        }
        Ok(Exit::Done)
    }
}
