//! Memory types by gfn, as the guest's MTRRs give them. A large leaf has one for all of its pages.

use crate::host::TlbFlush;
use crate::policy::{HasPolicy, Policy};
use crate::second_stage::SecondStage;
use crate::tables::spte::Format;
use gpa_model::{Gfn, MemoryType};

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// The guest gives `pages` frames from `first` another memory type (`update_mtrr()`): what maps them goes, so that what maps
    /// them next has the new one.
    pub fn set_memory_type(&self, first: Gfn, pages: u64, memory: MemoryType, tlb: &mut dyn TlbFlush) {
        let zap = self.policy().zaps_for_memory_type().then(|| self.zap_begin(first, pages));
        self.mmu_lock.lock().uncacheable.set(first, pages, memory == MemoryType::Uncacheable);
        if let Some(zap) = zap {
            self.zap_end(zap, tlb);
        }
    }
}
