//! Memory types, which the guest sets by MTRRs. A large leaf covers gfns of one type only.

use crate::host::TlbFlush;
use crate::policy::{HasPolicy, Mistake};
use crate::second_stage::SecondStage;
use crate::tables::spte::Format;
use gpa_model::{Gfn, MemoryType};

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Sets the memory type of `pages` gfns from `first` (`update_mtrr()`). Existing mappings are zapped, so that new
    /// ones get the new type.
    pub fn set_memory_type(&self, first: Gfn, pages: u64, memory: MemoryType, tlb: &mut dyn TlbFlush) {
        let zap = (!self.plants(Mistake::MemoryTypeWithoutZap)).then(|| self.zap_begin(first, pages));
        self.mmu_lock.lock().uncacheable.set(first, pages, memory == MemoryType::Uncacheable);
        if let Some(zap) = zap {
            self.zap_end(zap, tlb);
        }
    }
}
