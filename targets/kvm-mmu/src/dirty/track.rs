//! Write tracking: every write to a tracked page, through any alias, is emulated, so that a shadow of a guest table can
//! follow it.

use crate::host::TlbFlush;
use crate::memslots::slots::Memslot;
use crate::policy::{HasPolicy, Policy};
use crate::second_stage::SecondStage;
use crate::second_stage::flush::FlushOwed;
use crate::tables::spte::Format;
use gpa_model::{Alias, Gfn};

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Tracks writes to `gfn` (`kvm_write_track_add_gfn()`): no SPTE stays writable, and a fast page fault cannot make
    /// one writable again.
    pub fn track(&self, gfn: Gfn, tlb: &mut dyn TlbFlush) {
        self.set_tracked(gfn, true);
        let mut owed = FlushOwed::nothing();
        let mmu = self.mmu_lock.lock();
        self.write_protect(&mmu, gfn, 1, true, &mut owed);
        owed.all(self.policy(), tlb);
    }

    /// Stops tracking writes to `gfn`.
    pub fn untrack(&self, gfn: Gfn) {
        self.set_tracked(gfn, false);
    }

    fn set_tracked(&self, gfn: Gfn, on: bool) {
        let slots = self.slots.read();
        let Some(slot) = slots.find(gfn) else { return };
        let Some(page) = gfn.offset_from(slot.gfn) else { return };
        if on {
            slot.tracked.insert(page);
        } else {
            slot.tracked.remove(page);
        }
    }

    /// Whether writes to `gfn` of `slot` are emulated: the page is tracked, or it holds a guest table above the lowest
    /// level.
    pub(crate) fn is_tracked(&self, slot: &Memslot, gfn: Gfn, alias: Alias) -> bool {
        let page = self.policy().track_key(gfn, alias).offset_from(slot.gfn);
        page.is_some_and(|page| slot.tracked.contains(page) || slot.upper_tables.contains(page))
    }

    pub(crate) fn is_table(&self, slot: &Memslot, gfn: Gfn, alias: Alias) -> bool {
        self.policy().track_key(gfn, alias).offset_from(slot.gfn).is_some_and(|page| slot.tables.contains(page))
    }
}
