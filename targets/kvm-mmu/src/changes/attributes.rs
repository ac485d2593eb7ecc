//! Memory attributes by gfn: whether a frame is private. A large leaf has frames of one kind only.
//!
//! While they change nothing maps the frames, and no large leaf that some of them belong to is made for others: it would be there
//! when they have changed (`kvm_arch_pre_set_memory_attributes()`).

use crate::host::TlbFlush;
use crate::memslots::attributes::Change;
use crate::policy::{HasPolicy, Policy};
use crate::second_stage::SecondStage;
use crate::second_stage::flush::FlushOwed;
use crate::tables::spte::Format;
use gpa_model::Gfn;

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Make `pages` frames from `first` private or shared (`kvm_vm_set_mem_attributes()`). One change at a time, of these or of
    /// memslots; others wait.
    pub fn set_attributes(&self, first: Gfn, pages: u64, private: bool, tlb: &mut dyn TlbFlush) {
        let _slots_lock = self.slots_lock.lock();
        self.attributes_begin(first, pages, private, tlb);
        self.attributes_end();
    }

    /// Nothing maps the frames when this returns, and nothing will until the end.
    pub(crate) fn attributes_begin(&self, first: Gfn, pages: u64, private: bool, tlb: &mut dyn TlbFlush) {
        let mut mmu = self.mmu_lock.lock();
        mmu.attributes.change = Some(Change { first, pages, private });
        let mut owed = FlushOwed::nothing();
        if self.policy().zaps_for_attributes() {
            self.zap_gfns(&mut mmu, first, pages, &mut owed);
        }
        owed.all(self.policy(), tlb);
    }

    /// The frames are what they were to become.
    pub(crate) fn attributes_end(&self) {
        let mut mmu = self.mmu_lock.lock();
        if let Some(Change { first, pages, private }) = mmu.attributes.change.take() {
            mmu.attributes.private.set(first, pages, private);
        }
    }
}
