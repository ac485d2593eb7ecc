//! The part of a fault under the `mmu_lock`: the mapping (`__direct_map()`).

use crate::fault::{PageFault, Resolved};
use crate::host::{HostPages, TlbFlush};
use crate::memslots::slots::{Memslot, Memslots};
use crate::policy::{Family, HasPolicy, LargeSeen, Mistake, Policy};
use crate::second_stage::flush::FlushOwed;
use crate::second_stage::{Locked, SecondStage};
use crate::tables::spte::{Entry, Format, Leaf, table_level};
use crate::tables::table_pages::Sptep;
use crate::zap::Retired;
use gpa_model::{Access, Gfn, Gpa, Level, Rights};

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Maps a fault and releases its page (`direct_page_fault()`).
    pub(crate) fn map(
        &self,
        host: &dyn HostPages,
        slots: &Memslots,
        tlb: &mut dyn TlbFlush,
        fault: &PageFault,
    ) -> Resolved {
        let resolved = self.direct_map(host, slots, tlb, fault);
        self.finish_page_fault(host, fault, resolved);
        resolved
    }

    /// Releases the page: it is mapped, or not needed (`kvm_mmu_finish_page_fault()`).
    pub(crate) fn finish_page_fault(&self, host: &dyn HostPages, fault: &PageFault, resolved: Resolved) {
        if !self.plants(Mistake::ReleasedBeforeMapped)
            && (resolved != Resolved::Retry || !self.plants(Mistake::StaleNotReleased))
        {
            host.release(fault.pfn);
        }
    }

    /// Maps the page, unless the look-up may be out of date (`__direct_map()`).
    fn direct_map(
        &self,
        host: &dyn HostPages,
        slots: &Memslots,
        tlb: &mut dyn TlbFlush,
        fault: &PageFault,
    ) -> Resolved {
        let mut mmu = self.mmu_lock.lock();
        if self.is_stale(&mmu, slots, fault) {
            return Resolved::Retry;
        }
        self.make_mmu_pages_available(&mut mmu, slots, usize::from(self.tables.root_level()), tlb);
        let slot = slots.find(fault.gfn);
        let tracked = slot.is_some_and(|slot| self.is_tracked(slot, fault.gfn, fault.alias));
        let rights = if tracked { fault.rights.minus(Rights::W) } else { fault.rights };
        let rights = self.unsync_for(&mut mmu, slot, fault, rights);
        let wanted = slot.map_or(Level::Page4K, |slot| self.mapping_level(host, &mmu, slot, fault));
        let level = if self.disallows_large(fault.access) { Level::Page4K } else { wanted };
        let rights = self.leaf_rights(level, rights);
        let at = self.make_way(&mut mmu, fault, level, tlb);
        if level < wanted {
            self.account_split(&mut mmu, fault, wanted);
        }
        let gfn = self.policy().base_gfn(fault.gfn, fault.alias).align_down(level.pages());
        let leaf = fault.gfn.align_down(level.pages());
        let pfn = fault.pfn.before(self.policy().offset_in_leaf(self.vm.stolen(), fault.gpa, leaf));
        let mut owed = FlushOwed::nothing();
        let old = self.tables.get(at);
        let mut retired = Retired::new();
        if old.is_present() && !old.is_leaf(at.level) {
            match self.policy().family() {
                Family::Rmap => self.zap_link(&mut mmu, at),
                Family::Tdp => self.tdp_unlink(&mut mmu, at, &mut retired),
            }
            if !self.plants(Mistake::TableReplacedUnflushed) {
                owed.owe();
            }
        } else if old.is_present() && old.pfn() != pfn {
            self.zap(&mut mmu, at);
            owed.owe();
        }
        let leaf = Leaf { pfn, rights, level, host_writable: fault.host_writable, young: true };
        self.set_leaf(&mut mmu, at, gfn, fault.alias, Entry::leaf(leaf));
        if rights.contains(Rights::W) {
            self.mark_dirty(slots, fault.vcpu, self.policy().dirty_key(gfn, fault.alias), fault.alias);
        }
        owed.range(self.policy(), self.vm.stolen(), gfn, level.pages(), tlb);
        self.free(&mut mmu, &retired, tlb);
        let neighbours = self.policy().family() == Family::Rmap
            && (self.plants(Mistake::PrefetchInInvalidation) || !self.notifier.is_active());
        if at.level == 1 && neighbours {
            self.prefetch(host, &mut mmu, slots, at);
        }
        // Tracking may have begun after the look-up.
        if tracked && fault.access == Access::Write {
            self.mark_dirty(slots, fault.vcpu, self.policy().dirty_key(fault.gfn, fault.alias), fault.alias);
            return Resolved::Write;
        }
        Resolved::Fixed
    }

    /// Whether the look-up may be out of date, which was done without the lock (`is_page_fault_stale()`).
    pub(crate) fn is_stale(&self, mmu: &Locked, slots: &Memslots, fault: &PageFault) -> bool {
        let raced =
            !self.plants(Mistake::NotifierUnchecked) && self.notifier.must_retry(fault.mmu_seq, fault.hva, fault.gfn);
        let obsolete = !self.plants(Mistake::SlotsUnchecked) && slots.generation() != fault.slots_generation;
        let elsewhere = self.plants(Mistake::StaleWhenever) && self.notifier.is_active();
        raced || obsolete || elsewhere || mmu.attributes.is_changing(fault.gfn, 1)
    }

    /// The size of the leaf for the fault (`kvm_mmu_hugepage_adjust()`). All conditions are checked under the lock.
    fn mapping_level(&self, host: &dyn HostPages, mmu: &Locked, slot: &Memslot, fault: &PageFault) -> Level {
        let of_host = self.level_of_kind(host, fault.alias, fault.hva);
        let of_host = self.policy().host_level(of_host, fault.host_level);
        let may = |level: &Level| {
            self.policy().may_map_large(LargeSeen {
                inside_slot: slot.holds_leaf(fault.gfn, *level),
                congruent: slot.is_congruent(*level),
                logged: slot.flags.log_dirty,
                tracked: slot.tracks_in_leaf(fault.gfn, *level),
                one_type: self.is_of_one_type(mmu, fault.gpa, *level),
                split: !self.disallows_large(fault.access) && self.is_split(mmu, fault, *level),
                alike: self.are_alike(mmu, fault.gfn, *level),
                zapped: self.notifier.is_zapping(fault.gfn.align_down(level.pages()), level.pages()),
            })
        };
        Level::LARGE.into_iter().filter(|level| *level <= of_host).find(may).unwrap_or_default()
    }

    /// Whether the attributes allow a leaf of `level` that covers `gfn` (`hugepage_has_attrs()`).
    fn are_alike(&self, mmu: &Locked, gfn: Gfn, level: Level) -> bool {
        let (leaf, pages) = (gfn.align_down(level.pages()), level.pages());
        let settled = self.plants(Mistake::LargeWhileAttributesChange) || !mmu.attributes.is_changing(leaf, pages);
        settled && mmu.attributes.are_alike(leaf, pages)
    }

    /// Whether all pages of the leaf of `level` that covers `gpa` have one memory type
    /// (`kvm_mtrr_check_gfn_range_consistency()`).
    pub(crate) fn is_of_one_type(&self, mmu: &Locked, gpa: Gpa, level: Level) -> bool {
        let leaf = self.policy().memory_type_gfn(self.vm.stolen(), gpa).align_down(level.pages());
        !mmu.uncacheable.divides(leaf, level.pages())
    }

    /// The entry for a leaf of `level`, with the tables on the way to it. A large leaf in the way is dropped
    /// (`drop_large_spte()`).
    fn make_way(&self, mmu: &mut Locked, fault: &PageFault, level: Level, tlb: &mut dyn TlbFlush) -> Sptep {
        let walked = self.policy().walked(self.vm.stolen(), fault.gpa);
        let gfn = self.policy().base_gfn(fault.gfn, fault.alias);
        loop {
            let tables = &self.tables;
            let entry =
                mmu.shadow_pages.entry_or_alloc(self.policy(), tables, walked, gfn, fault.alias, table_level(level));
            match entry {
                Ok(at) => return at,
                Err(large) => {
                    let mut owed = FlushOwed::nothing();
                    self.owe(mmu, large, fault.gfn, &mut owed);
                    self.zap(mmu, large);
                    owed.range(self.policy(), self.vm.stolen(), fault.gfn, 1, tlb);
                }
            }
        }
    }
}
