//! The software walk of the guest's own 64-bit page tables (`paging_tmpl.h`): stolen bits are stripped from every entry
//! and are reserved in none.

use crate::policy::Policy;
use crate::second_stage::SecondStage;
use crate::spte::Format;
use gpa_model::{Alias, Exit, Gpa};

impl<P: Policy, F: Format> SecondStage<P, F> {
    /// Follow one table pointer and one leaf as they stand in the guest's tables.
    pub(crate) fn guest_walk(&self, table: Gpa, leaf: Gpa) -> Exit {
        let stolen = self.vm.stolen();
        let reserved = P::reserved_gpa_bits(stolen, self.vm.maxphyaddr());
        if (table.raw() | leaf.raw()) & reserved != 0 {
            return Exit::GuestFault;
        }
        let table_gfn = P::table_gfn(stolen, table);
        match self.slots.read().find(table_gfn) {
            // The table cannot be read: the guest gets the page fault that its own walk would have got.
            None => Exit::GuestFault,
            Some(slot) if slot.invalid => Exit::GuestFault,
            Some(_) => Exit::Translated(stolen_free(P::leaf_gfn(stolen, leaf))),
        }
    }
}

fn stolen_free(gfn: gpa_model::Gfn) -> Gpa {
    // Joined with the empty mask: whatever bits the policy left in the gfn show in the result.
    gpa_model::StolenMask::NONE.join(gfn, Alias::NONE)
}
