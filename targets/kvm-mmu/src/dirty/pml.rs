//! Page-modification logging (PML): the processor logs the GPA of each write that sets a dirty bit.

use crate::policy::{HasPolicy, Policy};
use crate::second_stage::SecondStage;
use crate::tables::spte::Format;
use gpa_model::{Gpa, Logging};

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Whether the processor logs writes. If it cannot, write-protection is used, whatever the VM asks for.
    pub(crate) fn logs_by_pml(&self) -> bool {
        F::PML && self.vm.logging() == Logging::Pml
    }

    /// The processor has set a dirty bit and logs the GPA that it walked, with its stolen bits.
    pub(crate) fn log_write(&self, vcpu: u8, gpa: Gpa) {
        if self.logs_by_pml() {
            self.pml.lock().push((vcpu, gpa));
        }
    }

    /// Moves logged GPAs to the bitmaps or rings (`vmx_flush_pml_buffer()`). `running` is the vCPU that runs, if any.
    /// Every exit does this, so the buffer is empty whenever a bitmap is read or a memslot moves.
    pub(crate) fn drain_pml(&self, running: Option<u8>) {
        if self.logs_by_pml() {
            let slots = self.slots.read();
            for (vcpu, gpa) in self.pml.lock().drain(..) {
                if self.vm.dirty_ring().is_none() || self.policy().has_ring(vcpu, running) {
                    let stolen = self.vm.stolen();
                    self.mark_dirty(&slots, vcpu, self.policy().pml_gfn(stolen, gpa), stolen.split(gpa).1);
                }
            }
        }
    }
}
