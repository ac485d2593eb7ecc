//! The callbacks of the MMU notifier: the host takes pages away, or asks whether they were used.

use crate::host::TlbFlush;
use crate::memslots::slots::Memslots;
use crate::policy::{HasPolicy, Mistake, Policy};
use crate::second_stage::flush::FlushOwed;
use crate::second_stage::{Locked, SecondStage};
use crate::tables::roots::GfnFilter;
use crate::tables::spte::{Entry, Format};
use gpa_model::{Gfn, HostPageRange};

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// `invalidate_range_start`: nothing maps the pages when this returns, and nothing can map them before the end.
    pub fn invalidate_begin(&self, range: HostPageRange, tlb: &mut dyn TlbFlush) {
        let slots = self.slots.read();
        let mut mmu = self.mmu_lock.lock();
        self.notifier.begin(range);
        let mut owed = FlushOwed::nothing();
        if self.plants(Mistake::FlushBeforeZap) {
            self.policy().flush_all(tlb);
        }
        for (first, pages) in self.gfns_of(&slots, range) {
            self.zap_gfns(&mut mmu, first, pages, self.notified_names(), &mut owed);
        }
        if !self.plants(Mistake::FlushBeforeZap) {
            owed.all(self.policy(), tlb);
        }
    }

    /// Punches a hole into the guest_memfd: the private pages beside the hvas of `range` go (`kvm_gmem_punch_hole()`). Nothing maps
    /// them when this returns, and faults that looked one up start again.
    pub fn punch_hole(&self, range: HostPageRange, tlb: &mut dyn TlbFlush) {
        let slots = self.slots.read();
        let mut mmu = self.mmu_lock.lock();
        self.notifier.begin(range);
        let mut owed = FlushOwed::nothing();
        for (first, pages) in self.gfns_of(&slots, range) {
            self.zap_gfns(&mut mmu, first, pages, self.policy().names_of_hole(), &mut owed);
        }
        owed.all(self.policy(), tlb);
        self.notifier.end();
    }

    /// The addresses that an invalidation of host pages concerns.
    fn notified_names(&self) -> GfnFilter {
        self.policy().invalidated_names(self.vm.shared_private())
    }

    /// `invalidate_range_end`.
    pub fn invalidate_end(&self) {
        let _mmu = self.mmu_lock.lock();
        self.notifier.end();
    }

    /// Tests and clears the accessed bits of the pages (`kvm_age_gfn()`).
    pub fn age(&self, range: HostPageRange) -> bool {
        let slots = self.slots.read();
        let mmu = self.mmu_lock.lock();
        // No short-circuit: every gfn is aged, also after the first young one.
        self.gfns_of(&slots, range).fold(false, |young, (first, pages)| young | self.age_gfns(&mmu, first, pages))
    }

    /// The gfns that pages of `range` back in any memslot, as the first gfn and a number of pages.
    fn gfns_of(&self, slots: &Memslots, range: HostPageRange) -> impl Iterator<Item = (Gfn, u64)> {
        slots.iter().filter(|slot| self.policy().invalidates(slot.id)).filter_map(move |slot| slot.gfns_of(range))
    }

    /// Tests and clears the accessed bits of `pages` gfns from `first` under every alias (`kvm_age_rmapp()`). No flush
    /// follows: a TLB that still holds the translation only makes the page look idle, as on Linux.
    pub(crate) fn age_gfns(&self, mmu: &Locked, first: Gfn, pages: u64) -> bool {
        let mut young = false;
        self.for_each_leaf(
            mmu,
            first,
            pages,
            |len| if self.plants(Mistake::AgesFirstOnly) { len.min(1) } else { len },
            |at| {
                let alias = mmu.shadow_pages.key(at.table).alias;
                // The notifier asks for pages behind hvas, and private pages have none.
                if !self.names_private(alias) && self.policy().ages(alias) {
                    let cleared =
                        |entry: Entry<F>| if self.plants(Mistake::AgeClearsNothing) { entry } else { entry.aged() };
                    let entry = self.tables.update(at, cleared);
                    young |= entry.is_present() && entry.is_accessed();
                }
            },
        );
        young
    }
}
