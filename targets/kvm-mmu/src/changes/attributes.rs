//! Memory attributes: a gfn is private or shared, and a large leaf covers gfns of one kind only.
//!
//! During a change nothing maps the gfns. No large leaf that covers one of them is made either, not even for another
//! gfn, because it would survive the change (`kvm_arch_pre_set_memory_attributes()`).

use crate::host::TlbFlush;
use crate::memslots::attributes::Change;
use crate::policy::{HasPolicy, Mistake, Policy};
use crate::second_stage::SecondStage;
use crate::second_stage::flush::FlushOwed;
use crate::tables::spte::Format;
use gpa_model::Gfn;

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Makes `pages` gfns from `first` private or shared (`kvm_vm_set_mem_attributes()`). Changes of attributes and
    /// memslots take turns.
    pub fn set_attributes(&self, first: Gfn, pages: u64, private: bool, tlb: &mut dyn TlbFlush) {
        let _slots_lock = self.slots_lock.lock();
        self.attributes_begin(first, pages, private, tlb);
        self.attributes_end();
    }

    /// Begins a change. Nothing maps the gfns when this returns, and nothing can map them before the end.
    pub(crate) fn attributes_begin(&self, first: Gfn, pages: u64, private: bool, tlb: &mut dyn TlbFlush) {
        let mut mmu = self.mmu_lock.lock();
        mmu.attributes.change = Some(Change { first, pages, private });
        let mut owed = FlushOwed::nothing();
        if !self.plants(Mistake::AttributesWithoutZap) {
            let names = self.policy().names_of_converted(self.vm.shared_private(), private);
            self.zap_gfns(&mut mmu, first, pages, names, &mut owed);
        }
        owed.all(self.policy(), tlb);
    }

    /// Ends the change: the new attributes take effect.
    pub(crate) fn attributes_end(&self) {
        let mut mmu = self.mmu_lock.lock();
        if let Some(Change { first, pages, private }) = mmu.attributes.change.take() {
            mmu.attributes.private.set(first, pages, private);
            if !self.plants(Mistake::FaultOverConversion) {
                self.notifier.end_conversion();
            }
        }
    }
}
