//! Fast zap: deleting or moving a memslot removes all mappings at once, whatever their number.
//!
//! Each shadow page carries the generation in which it was made. A new generation begins: vCPUs load a new root, and
//! older pages are not found again. After a TLB flush the guest cannot reach them. They are taken apart when the change
//! ends; until then their leaves stay in the rmap, because the notifier has to reach them.

use crate::host::TlbFlush;
use crate::policy::{HasPolicy, Mistake};
use crate::second_stage::flush::FlushOwed;
use crate::second_stage::{Locked, SecondStage};
use crate::tables::roots::Root;
use crate::tables::spte::Format;
use crate::zap::Retired;
use gpa_model::Alias;

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Makes all mappings unreachable for vCPUs, once the owed flush is done (`kvm_mmu_zap_all_fast()`).
    pub(crate) fn zap_all_fast(&self, mmu: &mut Locked, owed: &mut FlushOwed) {
        mmu.shadow_pages.next_generation();
        let root = mmu.shadow_pages.alloc_root(self.tables.root_level(), Alias::NONE);
        self.tables.set_root(Root::Direct, root);
        if !self.plants(Mistake::ObsoleteUnflushed) {
            owed.owe();
        }
    }

    /// Takes the pages of older generations apart (`kvm_zap_obsolete_pages()`).
    pub(crate) fn zap_obsolete_pages(&self, tlb: &mut dyn TlbFlush) {
        let slots = self.slots.read();
        let mut mmu = self.mmu_lock.lock();
        let obsolete: Retired = mmu.shadow_pages.obsolete().collect();
        if obsolete.is_empty() {
            return;
        }
        for &table in &obsolete {
            self.retire(&mut mmu, &slots, table);
        }
        self.commit_zap(&mut mmu, &obsolete, true, tlb);
    }
}
