//! The fault path, in KVM's order: unalias, slot, fast path, snapshot, page, then under the lock the staleness check, the
//! mapping and the prefetch of neighbours.

use crate::async_pf::Wait;
use crate::flush::{FlushOwed, TlbFlush};
use crate::memslots::{Memslot, Memslots};
use crate::policy::{AliasFault, Family, HasPolicy, LargeSeen, Policy, SlotSeen};
use crate::second_stage::{HostPages, Locked, PfnError, SecondStage};
use crate::spte::{ENTRIES, Entry, Format, Leaf, pages_of_entry, table_level};
use crate::tables::Sptep;
use crate::tdp_mmu::Retired;
use gpa_model::{Access, Alias, Exit, Gfn, Gpa, HostPage, Level, Pfn, Rights, SlotId};
use smallvec::SmallVec;

/// Entries looked at around a fault, aligned (`PTE_PREFETCH_NUM`).
const PREFETCH: u16 = 8;

/// A fault whose page has been looked up and that waits for the lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageFault {
    pub(crate) vcpu: u8,
    gpa: Gpa,
    pub(crate) access: Access,
    pub(crate) gfn: Gfn,
    pub(crate) alias: Alias,
    hva: HostPage,
    pfn: Pfn,
    /// How large a host mapping the page was part of when it was looked up.
    host_level: Level,
    pub(crate) rights: Rights,
    pub(crate) host_writable: bool,
    mmu_seq: u64,
    slots_generation: u64,
}

impl PageFault {
    /// The faulting address.
    pub(crate) const fn gpa(&self) -> Gpa {
        self.gpa
    }

    /// The page behind it.
    pub(crate) const fn pfn(&self) -> Pfn {
        self.pfn
    }
}

/// How far a fault got without the lock.
#[derive(Debug)]
pub(crate) enum FaultIn {
    /// A fast page fault did it.
    Fixed,
    /// There is no memory for the guest here; that can be remembered.
    NoSlot,
    /// User space has to emulate the access.
    Emulate,
    /// The write is tracked, and was emulated on this page.
    Write(Pfn),
    /// The page has to be read in, and the vCPU does not sleep for it: this is what the guest sees.
    Async(Exit),
    /// Nobody can have the page.
    Error,
    /// Start again.
    Retry,
    /// The page is known; go on under the lock.
    Map(PageFault),
}

/// How a fault ended (`RET_PF_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Resolved {
    Fixed,
    /// The write is tracked, and was emulated.
    Write,
    Retry,
}

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Everything up to the lock (`direct_page_fault()`, `kvm_faultin_pfn()`).
    pub(crate) fn fault_in(
        &self,
        host: &dyn HostPages,
        slots: &Memslots,
        vcpu: u8,
        (gpa, access): (Gpa, Access),
        wait: Wait,
    ) -> FaultIn {
        let stolen = self.vm.stolen();
        let gfn = self.policy().unalias(stolen, gpa);
        let alias = self.policy().alias_of(stolen, gpa);
        if self.fast_page_fault(slots, vcpu, (gpa, gfn, alias), access) {
            return FaultIn::Fixed;
        }
        let found = self.look_up(host, slots, vcpu, (gpa, access), wait);
        if matches!(found, FaultIn::NoSlot) {
            self.cache_mmio(slots, gpa, gfn, alias);
        }
        found
    }

    /// What the memslots and the host say about a fault (`kvm_faultin_pfn()`).
    pub(crate) fn look_up(
        &self,
        host: &dyn HostPages,
        slots: &Memslots,
        vcpu: u8,
        (gpa, access): (Gpa, Access),
        wait: Wait,
    ) -> FaultIn {
        let stolen = self.vm.stolen();
        let gfn = self.policy().unalias(stolen, gpa);
        let alias = self.policy().alias_of(stolen, gpa);
        let (mmu_seq, slots_generation) = (self.policy().snapshot(self.notifier.mmu_seq()), slots.generation());
        let slot = slots.find(self.policy().slot_gfn(stolen, gpa));
        let seen = slot.map(|slot| SlotSeen { id: slot.id, invalid: slot.invalid });
        match self.policy().fault_in(stolen.split(gpa).1, seen) {
            AliasFault::NoSlot => return FaultIn::NoSlot,
            AliasFault::Retry => return FaultIn::Retry,
            AliasFault::Proceed => {}
        }
        let Some((slot, hva)) = slot.and_then(|slot| Some((slot, slot.hva_of(gfn)?))) else { return FaultIn::Emulate };
        if slot.flags.readonly && access == Access::Write {
            return FaultIn::Emulate;
        }
        let host_writable = !slot.flags.readonly;
        let rights = if host_writable { Rights::RWX } else { Rights::RX };
        if access == Access::Write && self.is_tracked(slot, gfn, alias) {
            let Ok(pfn) = host.pfn(hva) else { return self.no_page() };
            self.mark_dirty(slots, vcpu, self.policy().dirty_key(gfn, alias), alias);
            host.release(pfn);
            return FaultIn::Write(pfn);
        }
        let mut page = host.pfn_nowait(hva);
        if page == Err(PfnError::NeedsIo) {
            if wait == Wait::Async
                && let Some(waiting) = self.setup_async_pf(vcpu, (gpa, gfn), access, hva)
            {
                return waiting;
            }
            page = host.pfn(hva);
            if let (Ok(pfn), false) = (page, self.policy().holds_read_in()) {
                host.release(pfn);
            }
        }
        let Ok(pfn) = page else { return self.no_page() };
        if !self.policy().holds_until_mapped() {
            host.release(pfn);
        }
        let host_level = host.level(hva);
        FaultIn::Map(PageFault {
            vcpu,
            gpa,
            access,
            gfn,
            alias,
            hva,
            pfn,
            host_level,
            rights,
            host_writable,
            mmu_seq,
            slots_generation,
        })
    }

    /// Remember that there is nothing here, unless the memslots are changing right now or there is no room for it
    /// (`mark_mmio_spte()`).
    fn cache_mmio(&self, slots: &Memslots, gpa: Gpa, gfn: Gfn, alias: Alias) {
        if !self.policy().caches_mmio(slots.in_flux()) {
            return;
        }
        let mut mmu = self.mmu_lock.lock();
        if mmu.shadow_pages.to_recycle(usize::from(self.tables.root_level())).is_some() {
            return;
        }
        let walked = self.policy().walked(self.vm.stolen(), gpa);
        // Where there is a large leaf, there is memory.
        let at = mmu.shadow_pages.entry_or_alloc(self.policy(), &self.tables, walked, gfn, alias, 1);
        if let Ok(at) = at
            && !self.tables.get(at).is_present()
        {
            let generation = self.policy().mmio_generation(slots.generation());
            self.tables.set(at, Entry::mmio(self.policy().mmio_gfn(gfn, alias), generation));
        }
    }

    /// A write to an SPTE that only dirty logging made read-only needs no lock, nor does an access to one that ageing took
    /// the rights from (`fast_page_fault()`).
    fn fast_page_fault(
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
            // A large leaf would have all of its pages written and one of them logged.
            Access::Write if at.level > 1 && self.policy().keeps_large_protected() && Self::is_logged(slots, gfn) => {
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

    /// The rest, under the lock, and what a fault ends with (`direct_page_fault()`).
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

    /// The page is mapped, or not needed after all (`kvm_mmu_finish_page_fault()`).
    pub(crate) fn finish_page_fault(&self, host: &dyn HostPages, fault: &PageFault, resolved: Resolved) {
        if self.policy().holds_until_mapped() && (resolved != Resolved::Retry || self.policy().releases_stale()) {
            host.release(fault.pfn);
        }
    }

    /// What becomes of a fault whose page nobody can have.
    fn no_page(&self) -> FaultIn {
        if self.policy().tells_no_page() { FaultIn::Error } else { FaultIn::NoSlot }
    }

    /// Map the page, unless what was looked up may be out of date (`__direct_map()`).
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
            owed.owe();
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
            && (self.policy().prefetches_in_invalidation() || !self.notifier.is_active());
        if at.level == 1 && neighbours {
            self.prefetch(host, &mut mmu, slots, at);
        }
        // Tracking began after the fault did.
        if tracked && fault.access == Access::Write {
            self.mark_dirty(slots, fault.vcpu, self.policy().dirty_key(fault.gfn, fault.alias), fault.alias);
            return Resolved::Write;
        }
        Resolved::Fixed
    }

    /// Whether what was looked up without the lock may be out of date (`is_page_fault_stale()`).
    pub(crate) fn is_stale(&self, mmu: &Locked, slots: &Memslots, fault: &PageFault) -> bool {
        let raced = self.policy().checks_notifier() && self.notifier.must_retry(fault.mmu_seq, fault.hva, fault.gfn);
        let obsolete = self.policy().checks_slots() && slots.generation() != fault.slots_generation;
        raced || obsolete || mmu.attributes.is_changing(fault.gfn, 1)
    }

    /// How large a leaf may map the fault (`kvm_mmu_hugepage_adjust()`). Everything is asked under the lock.
    fn mapping_level(&self, host: &dyn HostPages, mmu: &Locked, slot: &Memslot, fault: &PageFault) -> Level {
        let of_host = self.policy().host_level(host.level(fault.hva), fault.host_level);
        let may = |level: &Level| {
            self.policy().may_map_large(LargeSeen {
                inside_slot: slot.holds_leaf(fault.gfn, *level),
                congruent: slot.is_congruent(*level),
                logged: slot.flags.log_dirty,
                tracked: slot.tracks_in_leaf(fault.gfn, *level),
                one_type: self.is_of_one_type(mmu, fault.gpa, *level),
                split: !self.disallows_large(fault.access) && self.is_split(mmu, fault, *level),
                alike: mmu.attributes.are_alike(self.policy(), fault.gfn, *level),
                zapped: self.notifier.is_zapping(fault.gfn.align_down(level.pages()), level.pages()),
            })
        };
        Level::LARGE.into_iter().filter(|level| *level <= of_host).find(may).unwrap_or_default()
    }

    /// The entry for a leaf of `level`, with large leaves in the way to it dropped (`drop_large_spte()`).
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

    /// A flush is owed for the leaf at `at`, which was looked at because of `gfn`.
    pub(crate) fn owe(&self, mmu: &Locked, at: Sptep, gfn: Gfn, owed: &mut FlushOwed) {
        owed.owe();
        if at.level > 1 {
            let (leaf, table) = (mmu.shadow_pages.gfn_of(at), mmu.shadow_pages.key(at.table).gfn);
            let (first, pages) = self.policy().flushed_for_large(leaf, pages_of_entry(at.level), table, gfn);
            owed.owe_large(first, pages);
        }
    }

    fn is_logged(slots: &Memslots, gfn: Gfn) -> bool {
        slots.find(gfn).is_some_and(|slot| slot.flags.log_dirty)
    }

    /// Take away everything that hangs from the link at `at`, and the link.
    fn zap_link(&self, mmu: &mut Locked, at: Sptep) {
        let table = self.tables.get(at).table();
        self.zap_table(mmu, table, at.level - 1);
        mmu.shadow_pages.unlink(table, at);
        mmu.shadow_pages.remove_nx_split(table);
        self.tables.set(at, Entry::ABSENT);
    }

    /// Take away everything in and below a table whose place a large leaf takes. The table stays, for when it is needed again.
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

    /// Logging was switched off: take away the small leaves in whose place a large one would do, so that the next access makes
    /// it (`kvm_mmu_zap_collapsible_sptes()`).
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
        if self.policy().flushes_collapsed() {
            owed.range(self.policy(), self.vm.stolen(), first, pages, tlb);
        }
    }

    /// Write a leaf, and tell the rmap (`mmu_set_spte()`).
    pub(crate) fn set_leaf(&self, mmu: &mut Locked, at: Sptep, gfn: Gfn, alias: Alias, entry: Entry<F>) {
        if self.policy().family() == Family::Rmap && !self.tables.get(at).is_present() {
            mmu.rmap.add(self.policy().rmap_key(gfn, alias), at);
        }
        self.tables.set(at, entry);
    }

    /// Map the neighbours that are plain memory (`direct_pte_prefetch()`). Never into a logged slot: a prefetched page is
    /// writable, and nobody has written it.
    pub(crate) fn prefetch(&self, host: &dyn HostPages, mmu: &mut Locked, slots: &Memslots, around: Sptep) {
        let key = *mmu.shadow_pages.key(around.table);
        let first = around.index & !(PREFETCH - 1);
        for index in first..first + PREFETCH {
            let at = Sptep { index, ..around };
            if index == around.index || self.tables.get(at).is_present() {
                continue;
            }
            let gfn = mmu.shadow_pages.gfn_of(at);
            let Some(slot) = slots.find(gfn) else { continue };
            let plain = !slot.invalid && !slot.flags.readonly && !slot.flags.log_dirty;
            if mmu.attributes.is_changing(gfn, 1) {
                continue;
            }
            let may = self.policy().may_prefetch(key.alias, slot.id)
                && (self.policy().shows_private(key.guest_mode) || !slot.id.is_internal());
            if let (true, true, Some(hva)) = (plain, may, slot.hva_of(gfn)) {
                let rights = key.access.intersect(self.unasked_rights(slot, gfn, key.alias));
                if !rights.contains(Rights::R) {
                    continue;
                }
                let Ok(pfn) = host.pfn_nowait(hva) else { continue };
                let leaf = Leaf { pfn, rights, level: Level::Page4K, host_writable: true, young: false };
                self.set_leaf(mmu, at, gfn, key.alias, Entry::leaf(leaf));
                host.release(pfn);
            }
        }
    }

    /// Take one leaf away. The rmap key is worked out anew from where the leaf is.
    pub(crate) fn zap(&self, mmu: &mut Locked, at: Sptep) {
        if self.policy().family() == Family::Rmap {
            let gfn = self.policy().remove_key(mmu.shadow_pages.gfn_of(at), mmu.shadow_pages.key(at.table).alias);
            mmu.rmap.remove(gfn, at);
        }
        self.tables.set(at, Entry::ABSENT);
    }

    /// Take away what maps `pages` pages from `first`, under every alias (`kvm_unmap_rmapp()`).
    pub(crate) fn zap_gfns(&self, mmu: &mut Locked, first: Gfn, pages: u64, owed: &mut FlushOwed) {
        match self.policy().family() {
            Family::Rmap => _ = self.zap_some_gfns(mmu, first, pages, u64::MAX, owed),
            Family::Tdp => self.tdp_unmap(mmu, first, pages, owed),
        }
    }

    /// The same for at most `most` of them, as the rmap has them. True if there are no more.
    pub(crate) fn zap_some_gfns(
        &self,
        mmu: &mut Locked,
        first: Gfn,
        pages: u64,
        most: u64,
        owed: &mut FlushOwed,
    ) -> bool {
        let chains = mmu.rmap.within(first, pages);
        let mut leaves = chains.flat_map(|chain| &chain[..self.policy().zapped(chain.len())]).copied();
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let some: SmallVec<[Sptep; 16]> = leaves.by_ref().take(most).collect();
        let all = leaves.next().is_none();
        drop(leaves);
        for at in some {
            let entry = self.tables.get(at);
            let reached = at.level == 1 || self.policy().zaps_large();
            if reached && self.policy().can_zap(mmu.shadow_pages.gfn_of(at)) && entry.is_present() {
                if !entry.is_idle() || self.policy().flushes_idle() {
                    self.owe(mmu, at, first, owed);
                }
                self.zap(mmu, at);
            }
        }
        all
    }

    /// Test and clear the accessed bits of `pages` pages from `first` under every alias (`kvm_age_rmapp()`). Nothing is
    /// flushed: a TLB that still holds the translation only makes the page look idle, as on Linux.
    pub(crate) fn age_gfns(&self, mmu: &Locked, first: Gfn, pages: u64) -> bool {
        let mut young = false;
        self.for_each_leaf(
            mmu,
            first,
            pages,
            |len| len,
            |at| {
                if self.policy().ages(mmu.shadow_pages.key(at.table).alias) {
                    let entry = self.tables.update(at, Entry::aged);
                    young |= entry.is_present() && entry.is_accessed();
                }
            },
        );
        young
    }

    /// Visit the leaves that translate any of `pages` frames from `first`, under every alias; of each chain of the rmap as many as
    /// `reached` says.
    pub(crate) fn for_each_leaf(
        &self,
        mmu: &Locked,
        first: Gfn,
        pages: u64,
        reached: impl Fn(usize) -> usize,
        mut visit: impl FnMut(Sptep),
    ) {
        match self.policy().family() {
            Family::Rmap => {
                let chains = mmu.rmap.within(first, pages).map(|chain| &chain[..reached(chain.len())]);
                chains.flatten().for_each(|&at| visit(at));
            }
            Family::Tdp => self.tdp_leaves(mmu, first, pages, visit),
        }
    }
}
