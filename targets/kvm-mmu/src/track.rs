//! Write tracking: whoever shadows a guest's page table wants to know of every write to it, through any alias.

use crate::adapter::KvmMmu;
use crate::flush::FlushOwed;
use crate::memslots::Memslot;
use crate::policy::Policy;
use gpa_model::{Alias, FlushBackend, Gfn};

impl<P: Policy> KvmMmu<P> {
    /// Emulate writes to `gfn` from now on (`kvm_write_track_add_gfn()`): no SPTE may stay writable, or be made so again
    /// without asking.
    pub(crate) fn track(&mut self, gfn: Gfn, tlb: &mut FlushBackend) {
        self.set_tracked(gfn, true);
        let mut owed = FlushOwed::nothing();
        self.write_protect(gfn, true, &mut owed);
        owed.all::<P>(tlb);
    }

    /// Let writes to `gfn` through again.
    pub(crate) fn untrack(&mut self, gfn: Gfn) {
        self.set_tracked(gfn, false);
    }

    fn set_tracked(&mut self, gfn: Gfn, on: bool) {
        let Some(slot) = self.slots.find_mut(gfn) else { return };
        let Some(page) = gfn.offset_from(slot.gfn) else { return };
        if on {
            slot.tracked.set(page);
        } else {
            slot.tracked.take(page);
        }
    }

    /// Whether writes to `gfn` of `slot` are emulated.
    pub(crate) fn is_tracked(slot: &Memslot, gfn: Gfn, alias: Alias) -> bool {
        P::track_key(gfn, alias).offset_from(slot.gfn).is_some_and(|page| slot.tracked.contains(page))
    }
}
