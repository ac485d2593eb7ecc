//! Fast page faults, which do not take the `mmu_lock` (`fast_page_fault()`).

use crate::memslots::slots::Memslots;
use crate::policy::{HasPolicy, Mistake, Policy};
use crate::second_stage::SecondStage;
use crate::tables::spte::Format;
use gpa_model::{Access, Alias, Gfn, Gpa, Rights};

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Resolves a write to an SPTE that only dirty logging made read-only, or an access to one that ageing took the
    /// rights from (`fast_page_fault()`).
    pub(crate) fn fast_page_fault(
        &self,
        slots: &Memslots,
        vcpu: u8,
        (gpa, gfn, alias): (Gpa, Gfn, Alias),
        access: Access,
    ) -> bool {
        let _reading = self.tables.reading();
        let Some(at) = self.tables.leaf(gpa) else { return false };
        let entry = self.tables.get(at);
        if !entry.is_present() {
            return false;
        }
        let restored = entry.restored();
        let fixed = match access {
            // A writable large leaf would allow writes to all of its pages, and log only this one.
            Access::Write if at.level > 1 && !self.plants(Mistake::FastFaultOnLarge) && Self::is_logged(slots, gfn) => {
                return false;
            }
            Access::Write if restored.is_mmu_writable() => restored.writable(),
            Access::Read | Access::Execute if entry.is_idle() && restored.rights().contains(Rights::needed(access)) => {
                restored
            }
            _ => return false,
        };
        if !self.tables.replace(at, entry, fixed) {
            return false;
        }
        if fixed.is_writable() {
            self.mark_dirty(slots, vcpu, self.policy().fast_dirty_key(gfn, alias), alias);
        }
        true
    }

    fn is_logged(slots: &Memslots, gfn: Gfn) -> bool {
        slots.find(gfn).is_some_and(|slot| slot.flags.log_dirty)
    }
}
