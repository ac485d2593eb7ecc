//! Fast zap: with a memslot that is deleted or moved everything goes, at once, whatever its size.
//!
//! Shadow pages carry the generation in which they were made. A new one begins: vCPUs load a new root, and no page of an older
//! generation is found again. What that leaves behind is out of the guest's reach as soon as TLBs are flushed, and is taken apart
//! when the change ends; until then its leaves are in the rmap, because the host still has to hear of what they map.

use crate::host::TlbFlush;
use crate::policy::{HasPolicy, Policy};
use crate::second_stage::flush::FlushOwed;
use crate::second_stage::{Locked, SecondStage};
use crate::tables::roots::Root;
use crate::tables::spte::Format;
use crate::zap::Retired;
use gpa_model::Alias;

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Nothing that vCPUs can reach is mapped when what is owed was flushed (`kvm_mmu_zap_all_fast()`).
    pub(crate) fn zap_all_fast(&self, mmu: &mut Locked, owed: &mut FlushOwed) {
        mmu.shadow_pages.next_generation();
        let root = mmu.shadow_pages.alloc_root(self.tables.root_level(), Alias::NONE);
        self.tables.set_root(Root::Direct, root);
        if self.policy().flushes_obsolete() {
            owed.owe();
        }
    }

    /// Take the pages of older generations apart (`kvm_zap_obsolete_pages()`).
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
