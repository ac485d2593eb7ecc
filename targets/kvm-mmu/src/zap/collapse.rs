//! Removes small leaves and their tables in favour of large leaves.

use crate::host::TlbFlush;
use crate::policy::{HasPolicy, Mistake};
use crate::second_stage::flush::FlushOwed;
use crate::second_stage::{Locked, SecondStage};
use crate::tables::spte::{ENTRIES, Entry, Format};
use crate::tables::table_pages::Sptep;
use gpa_model::{Gfn, Level, SlotId};
use smallvec::SmallVec;

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Logging was switched off: removes the small leaves that a large one could replace; the next access makes it
    /// (`kvm_mmu_zap_collapsible_sptes()`).
    pub(crate) fn zap_collapsible(&self, id: SlotId, first: Gfn, pages: u64, tlb: &mut dyn TlbFlush) {
        let slots = self.slots.read();
        let Some(slot) = slots.get(id).filter(|slot| slot.is_congruent(Level::Page2M)) else { return };
        let mut mmu = self.mmu_lock.lock();
        let mut collapsible: SmallVec<[Sptep; 16]> = SmallVec::new();
        self.for_each_leaf(
            &mmu,
            first,
            pages,
            |len| len,
            |at| {
                if at.level == 1 && slot.holds_leaf(mmu.shadow_pages.gfn_of(at), Level::Page2M) {
                    collapsible.push(at);
                }
            },
        );
        let mut owed = FlushOwed::nothing();
        for at in collapsible {
            self.zap(&mut mmu, at);
            owed.owe();
        }
        if !self.plants(Mistake::CollapsedUnflushed) {
            owed.range(self.policy(), self.vm.stolen(), first, pages, tlb);
        }
    }

    /// Removes the link at `at`, and all leaves below it.
    pub(crate) fn zap_link(&self, mmu: &mut Locked, at: Sptep) {
        let table = self.tables.get(at).table();
        self.zap_table(mmu, table, at.level - 1);
        mmu.shadow_pages.unlink(table, at);
        mmu.shadow_pages.remove_nx_split(table);
        self.tables.set(at, Entry::ABSENT);
    }

    /// Removes all leaves of `table` and below it. The table is kept for reuse.
    fn zap_table(&self, mmu: &mut Locked, table: u32, level: u8) {
        for index in 0..ENTRIES {
            let at = Sptep::new(table, index, level);
            let entry = self.tables.get(at);
            if entry.is_present() && entry.is_leaf(level) {
                self.zap(mmu, at);
            } else if entry.is_present() {
                self.zap_link(mmu, at);
            } else {
                self.tables.set(at, Entry::ABSENT);
            }
        }
    }
}
