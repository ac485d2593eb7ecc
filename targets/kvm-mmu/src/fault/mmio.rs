//! MMIO entries, which remember that a GPA has no memslot.

use crate::memslots::slots::Memslots;
use crate::policy::{HasPolicy, Policy};
use crate::second_stage::SecondStage;
use crate::tables::spte::{Entry, Format};
use gpa_model::{Alias, Gfn, Gpa};

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Makes an MMIO entry, unless the memslots are changing or there is no room for a table (`mark_mmio_spte()`).
    pub(crate) fn cache_mmio(&self, slots: &Memslots, gpa: Gpa, gfn: Gfn, alias: Alias) {
        if !self.policy().caches_mmio(slots.in_flux()) {
            return;
        }
        let mut mmu = self.mmu_lock.lock();
        if mmu.shadow_pages.to_recycle(usize::from(self.tables.root_level())).is_some() {
            return;
        }
        let walked = self.policy().walked(self.vm.stolen(), gpa);
        // A large leaf in the way means that there is memory.
        let at = mmu.shadow_pages.entry_or_alloc(self.policy(), &self.tables, walked, gfn, alias, 1);
        if let Ok(at) = at
            && !self.tables.get(at).is_present()
        {
            let generation = self.policy().mmio_generation(slots.generation());
            self.tables.set(at, Entry::mmio(self.policy().mmio_gfn(gfn, alias), generation));
        }
    }
}
