//! Prefetch: a fault also maps its neighbours (`direct_pte_prefetch()`).

use crate::host::HostPages;
use crate::memslots::slots::Memslots;
use crate::policy::{HasPolicy, Policy};
use crate::second_stage::{Locked, SecondStage};
use crate::tables::spte::{Entry, Format, Leaf};
use crate::tables::table_pages::Sptep;
use gpa_model::{Level, Rights};

/// The number of entries in the aligned block that is prefetched (`PTE_PREFETCH_NUM`).
const PREFETCH: u16 = 8;

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Maps the neighbours that are plain memory (`direct_pte_prefetch()`). A memslot that logs is left out: a
    /// prefetched page is writable, and no write has been logged for it.
    pub(crate) fn prefetch(&self, host: &dyn HostPages, mmu: &mut Locked, slots: &Memslots, around: Sptep) {
        let key = *mmu.shadow_pages.key(around.table);
        let first = around.index & !(PREFETCH - 1);
        for index in first..first + PREFETCH {
            let at = Sptep { index, ..around };
            if index == around.index || self.tables.get(at).is_present() {
                continue;
            }
            let gfn = mmu.shadow_pages.gfn_of(at);
            let Some(slot) = slots.find(gfn) else { continue };
            let plain = !slot.invalid && !slot.flags.readonly && !slot.flags.log_dirty;
            if mmu.attributes.is_changing(gfn, 1) {
                continue;
            }
            let may = self.policy().may_prefetch(key.alias, slot.id)
                && (self.policy().shows_private(key.guest_mode) || !slot.id.is_internal());
            if let (true, true, Some(hva)) = (plain, may, slot.hva_of(gfn)) {
                let rights = key.access.intersect(self.unasked_rights(slot, gfn, key.alias));
                if !rights.contains(Rights::R) {
                    continue;
                }
                let Ok(pfn) = host.pfn_nowait(hva) else { continue };
                let leaf = Leaf { pfn, rights, level: Level::Page4K, host_writable: true, young: false };
                self.set_leaf(mmu, at, gfn, key.alias, Entry::leaf(leaf));
                host.release(pfn);
            }
        }
    }
}
