//! NX recovery: tables that exist only because of an instruction fetch are removed (`kvm_recover_nx_huge_pages()`).

use crate::host::TlbFlush;
use crate::policy::{Family, HasPolicy, Mistake, Policy};
use crate::second_stage::SecondStage;
use crate::tables::spte::Format;
use crate::zap::Retired;

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Removes the oldest such table. The next access that is not a fetch makes a large leaf again
    /// (`kvm_recover_nx_huge_pages()`).
    pub fn recover_nx_huge_page(&self, tlb: &mut dyn TlbFlush) {
        let slots = self.slots.read();
        let mut mmu = self.mmu_lock.lock();
        let Some(table) = mmu.shadow_pages.oldest_nx_split() else { return };
        let mut retired = Retired::new();
        match (self.policy().family(), mmu.shadow_pages.parent(table)) {
            (Family::Tdp, Some(parent)) => self.tdp_unlink(&mut mmu, parent, &mut retired),
            _ => {
                self.retire(&mut mmu, &slots, table);
                retired.push(table);
            }
        }
        mmu.shadow_pages.remove_nx_split(table);
        self.commit_zap(&mut mmu, &retired, !self.plants(Mistake::RecoveredUnflushed), tlb);
    }
}
