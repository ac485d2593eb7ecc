//! Large leaves that must not be executable (`nx_huge_pages`): an instruction fetch is mapped by small leaves.

use crate::fault::PageFault;
use crate::policy::{HasPolicy, Mistake};
use crate::second_stage::{Locked, SecondStage};
use crate::tables::spte::{Format, table_level};
use gpa_model::{Access, Level, Rights};

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Whether the access may be mapped by small leaves only (`huge_page_disallowed`).
    pub(crate) fn disallows_large(&self, access: Access) -> bool {
        self.vm.nx_huge_pages() && access == Access::Execute && !self.plants(Mistake::ExecuteMappedLarge)
    }

    /// The rights of `rights` that a leaf of `level` may grant (`make_spte()`).
    pub(crate) fn leaf_rights(&self, level: Level, rights: Rights) -> Rights {
        let executable = level == Level::Page4K || !self.vm.nx_huge_pages() || self.plants(Mistake::LargeExecutable);
        if executable { rights } else { rights.minus(Rights::X) }
    }

    /// Whether a large leaf of `level` was split here because of an instruction fetch (`disallowed_hugepage_adjust()`).
    pub(crate) fn is_split(&self, mmu: &Locked, fault: &PageFault, level: Level) -> bool {
        let below = table_level(level) - 1;
        self.tables.table_at(fault.gpa(), below).is_some_and(|table| mmu.shadow_pages.is_nx_split(table))
    }

    /// Lists the tables on the path of `fault` that exist only because it must not be mapped by a leaf of `level`
    /// (`account_nx_huge_page()`).
    pub(crate) fn account_split(&self, mmu: &mut Locked, fault: &PageFault, level: Level) {
        for below in 1..table_level(level) {
            if let Some(table) = self.tables.table_at(fault.gpa(), below) {
                mmu.shadow_pages.add_nx_split(table);
            }
        }
    }
}
