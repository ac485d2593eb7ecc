//! Page modification logging: the processor lists the addresses whose dirty bit it set.

use crate::policy::{HasPolicy, Policy};
use crate::second_stage::SecondStage;
use crate::tables::spte::Format;
use gpa_model::{Gpa, Logging};

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Whether the processor logs writes. If it cannot, they are noticed by write-protection, whatever is asked for.
    pub(crate) fn logs_by_pml(&self) -> bool {
        F::PML && self.vm.logging() == Logging::Pml
    }

    /// The processor set the dirty bit of an entry and logs the address it walked, stolen bits and all.
    pub(crate) fn log_write(&self, vcpu: u8, gpa: Gpa) {
        if self.logs_by_pml() {
            self.pml.lock().push((vcpu, gpa));
        }
    }

    /// Take what the processor has logged over into bitmaps or rings (`vmx_flush_pml_buffer()`), while `running` runs or no vCPU
    /// does. Every exit does it, so nobody reads a bitmap, or moves a slot, with writes still in the buffer.
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
