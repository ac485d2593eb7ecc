//! The rights of a fault on a page that holds a guest table (`mmu_try_to_unsync_pages()`).

use crate::fault::PageFault;
use crate::memslots::slots::Memslot;
use crate::policy::{HasPolicy, Mistake};
use crate::second_stage::{Locked, SecondStage};
use crate::tables::spte::Format;
use gpa_model::{Access, Alias, Gfn, Rights};
use smallvec::SmallVec;

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Reduces `rights` if the page holds a guest table (`mmu_try_to_unsync_pages()`). A write to a table of leaves
    /// makes its shadow pages unsync and is allowed. Any other access leaves the page write-protected, unless all of
    /// its shadow pages are unsync already.
    pub(crate) fn unsync_for(
        &self,
        mmu: &mut Locked,
        slot: Option<&Memslot>,
        fault: &PageFault,
        rights: Rights,
    ) -> Rights {
        let is_table = |slot: &Memslot| self.is_table(slot, fault.gfn, fault.alias);
        if !rights.contains(Rights::W) || !slot.is_some_and(is_table) {
            return rights;
        }
        let tables: SmallVec<[u32; 4]> = mmu.shadow_pages.indirect_of(fault.gfn).collect();
        if fault.access != Access::Write {
            // The existing SPTE may be writable then; taking that right away would owe a flush.
            let in_step = tables.iter().any(|&table| !mmu.shadow_pages.is_unsync(table));
            let writable = !in_step && !self.plants(Mistake::UnsyncReadProtects);
            return if writable { rights } else { rights.minus(Rights::W) };
        }
        for table in tables {
            mmu.shadow_pages.set_unsync(table, true);
        }
        rights
    }

    /// The rights of a page that is mapped without an access.
    pub(crate) fn unasked_rights(&self, slot: &Memslot, gfn: Gfn, alias: Alias) -> Rights {
        let protected = self.is_tracked(slot, gfn, alias) || self.is_table(slot, gfn, alias);
        if protected { Rights::RX } else { Rights::RWX }
    }
}
