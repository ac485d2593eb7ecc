//! [`SecondStage`]: what the vCPU threads of a VM and its host share, and what may be looked at under which lock.
//!
//! | | guarded by | |
//! |---|---|---|
//! | memslots | `slots` | read by faults from look-up to mapping, written by memslot changes; taken before the `mmu_lock` |
//! | rmap, shadow pages, memory types, attributes | `mmu_lock` | |
//! | entries of table pages | none | atomics; a page walker and fast page faults change them at any time |
//! | dirty and tracked pages, dirty rings, what vCPUs wait for | their own | the last lock to be taken |
//! | `mmu_seq` | `mmu_lock` to write | read by faults without it |

use crate::async_pf::AsyncPf;
use crate::attributes::Attributes;
use crate::dirty_ring::DirtyRing;
use crate::flush::{FlushOwed, TlbFlush};
use crate::gfn_ranges::GfnRanges;
use crate::memslots::{Memslot, Memslots, SlotError};
use crate::notifier::Notifier;
use crate::page_set::PageSet;
use crate::policy::{Corrected, Family, HasPolicy, Policy};
use crate::rmap::Rmap;
use crate::roots::Root;
use crate::shadow_page::ShadowPages;
use crate::spte::{Ept, Format};
use crate::sync::{Lock, ReadLock};
use crate::tables::Tables;
use gpa_model::limits::VCPUS;
use gpa_model::{
    Alias, FrameSet, Gfn, Gpa, Host, HostPage, HostPageRange, Level, Pfn, SlotChange, SlotId, Spte, StolenMask,
    VmConfig,
};
use smallvec::SmallVec;

/// Why there is no page behind an hva (`KVM_PFN_ERR_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PfnError {
    /// It has to be read in first (`KVM_PFN_ERR_NEEDS_IO`). Whoever may sleep never sees this.
    NeedsIo,
    /// Nobody can have it: nothing is mapped there, or its memory failed (`KVM_PFN_ERR_FAULT`, `KVM_PFN_ERR_HWPOISON`).
    NoPage,
}

/// Which page stands behind an hva right now (`hva_to_pfn()`), and who holds it.
pub trait HostPages {
    /// The page, read in if it has to be, and held until it is [released](HostPages::release). While `hva` is being invalidated it may
    /// still be the old one.
    ///
    /// # Errors
    /// [`PfnError::NoPage`]: the access ends in [`Exit::Error`](gpa_model::Exit::Error), and nothing is mapped.
    fn pfn(&self, hva: HostPage) -> Result<Pfn, PfnError>;

    /// The same without sleep (`FOLL_NOWAIT`).
    ///
    /// # Errors
    /// A [`PfnError`].
    fn pfn_nowait(&self, hva: HostPage) -> Result<Pfn, PfnError> {
        self.pfn(hva)
    }

    /// Let go of a page once (`kvm_release_pfn_clean()`). What is mapped is not held: the notifier says when it has to go. Nothing to do
    /// where pages are not counted.
    fn release(&self, _pfn: Pfn) {}

    /// How large a host mapping `hva` is part of (`host_pfn_mapping_level()`). One that is being invalidated, even in part, is
    /// not large any more.
    fn level(&self, _hva: HostPage) -> Level {
        Level::Page4K
    }
}

impl HostPages for Host {
    fn pfn(&self, hva: HostPage) -> Result<Pfn, PfnError> {
        if self.is_gone(hva) {
            return Err(PfnError::NoPage);
        }
        let pfn = Host::pfn(self, hva);
        self.pins().take(pfn);
        Ok(pfn)
    }

    fn pfn_nowait(&self, hva: HostPage) -> Result<Pfn, PfnError> {
        if self.is_out(hva) { Err(PfnError::NeedsIo) } else { HostPages::pfn(self, hva) }
    }

    fn release(&self, pfn: Pfn) {
        self.pins().release(pfn);
    }

    fn level(&self, hva: HostPage) -> Level {
        Host::level(self, hva)
    }
}

/// What only the holder of the `mmu_lock` may look at.
#[derive(Debug)]
pub(crate) struct Locked {
    pub(crate) shadow_pages: ShadowPages,
    pub(crate) rmap: Rmap,
    /// Which gfns are not write-back.
    pub(crate) uncacheable: GfnRanges,
    pub(crate) attributes: Attributes,
    /// Roots that no vCPU will load again, and whose tables are still there.
    pub(crate) retired_roots: SmallVec<[u32; 2]>,
    /// Roots that somebody walks from who has given up the lock, once each. They are not freed.
    pub(crate) held_roots: SmallVec<[u32; 2]>,
}

/// A second-stage MMU of one VM, shared by its vCPUs, with the decisions of `P`, whose tables are in format `F`.
#[derive(Debug)]
pub struct SecondStage<P: HasPolicy = Corrected, F: Format = Ept> {
    pub(crate) vm: VmConfig,
    /// Held for a whole change of memslots or attributes (`kvm->slots_lock`).
    pub(crate) slots_lock: Lock<()>,
    pub(crate) slots: ReadLock<Memslots>,
    pub(crate) tables: Tables<F>,
    pub(crate) mmu_lock: Lock<Locked>,
    pub(crate) notifier: Notifier,
    /// What the processors of which vCPUs have logged and nobody has taken over yet.
    pub(crate) pml: Lock<Vec<(u8, Gpa)>>,
    /// Of each vCPU; empty in a VM with bitmaps.
    pub(crate) rings: [Lock<DirtyRing>; VCPUS],
    /// What each vCPU waits for.
    pub(crate) async_pf: [Lock<AsyncPf>; VCPUS],
    /// What was warned of and not told yet.
    pub(crate) warning: Lock<Option<&'static str>>,
    policy: P,
}

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// With no memslots, nothing mapped, and just a root table.
    pub fn new(vm: &VmConfig) -> Self
    where
        P: Default,
    {
        Self::with_policy(P::default(), vm)
    }

    /// The same, with the decisions of `policy`.
    pub fn with_policy(policy: P, vm: &VmConfig) -> Self {
        let levels = policy.policy().levels(vm.levels());
        let (shadow_pages, rmap) = (ShadowPages::new(levels, &aliases_of_roots(policy.policy(), vm)), Rmap::new());
        let (uncacheable, attributes) = (GfnRanges::default(), Attributes::default());
        let (retired_roots, held_roots) = (SmallVec::new(), SmallVec::new());
        let locked = Locked { shadow_pages, rmap, uncacheable, attributes, retired_roots, held_roots };
        let mut tables = Tables::new(levels);
        tables.split_roots(direct_bits(policy.policy(), vm));
        Self {
            vm: *vm,
            slots_lock: Lock::default(),
            slots: ReadLock::new(Memslots::new()),
            tables,
            mmu_lock: Lock::new(locked),
            notifier: Notifier::new(),
            pml: Lock::default(),
            rings: Default::default(),
            async_pf: Default::default(),
            warning: Lock::default(),
            policy,
        }
    }

    /// Who decides.
    pub(crate) fn policy(&self) -> &P::Policy {
        self.policy.policy()
    }

    /// As it was made, for `vm`; memory is kept.
    pub(crate) fn reset(&mut self, vm: &VmConfig) {
        let policy = self.policy.policy();
        self.vm = *vm;
        self.slots.get_mut().clear();
        let Locked { shadow_pages, rmap, uncacheable, attributes, retired_roots, held_roots } = self.mmu_lock.get_mut();
        shadow_pages.clear(&mut self.tables, policy.levels(vm.levels()), &aliases_of_roots(policy, vm));
        self.tables.split_roots(direct_bits(policy, vm));
        rmap.clear();
        retired_roots.clear();
        held_roots.clear();
        uncacheable.clear();
        attributes.clear();
        self.notifier = Notifier::new();
        self.pml.get_mut().clear();
        self.rings.iter_mut().for_each(|ring| ring.get_mut().clear());
        self.async_pf.iter_mut().for_each(|waiting| waiting.get_mut().clear());
    }

    /// `invalidate_range_start`: nothing maps the pages when this returns, and nothing will until the end.
    pub fn invalidate_begin(&self, range: HostPageRange, tlb: &mut dyn TlbFlush) {
        let slots = self.slots.read();
        let mut mmu = self.mmu_lock.lock();
        self.notifier.begin(range);
        let mut owed = FlushOwed::nothing();
        for (first, pages) in self.gfns_of(&slots, range) {
            self.zap_gfns(&mut mmu, first, pages, &mut owed);
        }
        owed.all(self.policy(), tlb);
    }

    /// The gfns that pages of `range` back, in any slot: the first, and how many.
    fn gfns_of(&self, slots: &Memslots, range: HostPageRange) -> impl Iterator<Item = (Gfn, u64)> {
        slots.iter().filter(|slot| self.policy().invalidates(slot.id)).filter_map(move |slot| slot.gfns_of(range))
    }

    /// `invalidate_range_end`.
    pub fn invalidate_end(&self) {
        let _mmu = self.mmu_lock.lock();
        self.notifier.end();
    }

    /// What the tables say about `gpa`.
    pub fn walk(&self, gpa: Gpa) -> Option<Spte> {
        self.tables.walk(gpa)
    }

    /// Test and clear the accessed bits of the pages (`kvm_age_gfn()`).
    pub fn age(&self, range: HostPageRange) -> bool {
        let slots = self.slots.read();
        let mmu = self.mmu_lock.lock();
        // Every gfn is aged, also after the first young one.
        self.gfns_of(&slots, range).fold(false, |young, (first, pages)| young | self.age_gfns(&mmu, first, pages))
    }

    /// `KVM_GET_DIRTY_LOG`, as the frames of the window that are dirty.
    pub fn dirty_frames(&self, id: SlotId) -> FrameSet {
        let slots = self.slots.read();
        slots.get(id).map_or(FrameSet::EMPTY, |slot| self.frames_of_pages(slot, &slot.dirty))
    }

    /// The frames of the window that `pages` of `slot` are.
    pub(crate) fn frames_of_pages(&self, slot: &Memslot, pages: &PageSet) -> FrameSet {
        let frames = pages.iter().map(|page| self.vm.frames(slot.gfn.add(page), 1));
        frames.fold(FrameSet::EMPTY, FrameSet::union)
    }

    /// A whole memslot change (`kvm_set_memory_region()`). One at a time; others wait.
    ///
    /// # Errors
    /// A [`SlotError`] if there cannot be such a memslot; nothing has changed then.
    pub fn set_memslot(&self, id: SlotId, change: SlotChange, tlb: &mut dyn TlbFlush) -> Result<(), SlotError> {
        let _slots_lock = self.slots_lock.lock();
        self.slot_begin(id, change, tlb)?;
        self.slot_end(id, change, tlb);
        Ok(())
    }

    /// The first half of a memslot change (`kvm_invalidate_memslot()`, or the swap of a flags-only change).
    pub(crate) fn slot_begin(&self, id: SlotId, change: SlotChange, tlb: &mut dyn TlbFlush) -> Result<(), SlotError> {
        let mut slots = self.slots.write();
        slots.check(self.policy(), self.vm.stolen(), id, change)?;
        self.next_generation(&mut slots, true);
        let Some(slot) = slots.get_mut(id) else { return Ok(()) };
        match change {
            SlotChange::Flags(flags) if flags.readonly == slot.flags.readonly => slot.set_flags(flags),
            _ => slot.invalid = true,
        }
        let invalid = slot.invalid;
        // Faults may go on from here: they find the slot INVALID and retry.
        drop(slots);
        if invalid {
            self.zap_slot(id, &change, tlb);
        }
        Ok(())
    }

    fn zap_slot(&self, id: SlotId, change: &SlotChange, tlb: &mut dyn TlbFlush) {
        let slots = self.slots.read();
        let Some(slot) = slots.get(id).filter(|_| self.policy().zaps_for(change)) else { return };
        let mut mmu = self.mmu_lock.lock();
        let mut owed = FlushOwed::nothing();
        match self.policy().family() {
            Family::Rmap if self.vm.slot_zap_all() => self.zap_all_fast(&mut mmu, &mut owed),
            Family::Rmap => self.zap_gfns(&mut mmu, slot.gfn, slot.pages, &mut owed),
            Family::Tdp => self.tdp_zap_slot(&mut mmu, slot, &mut owed),
        }
        owed.all(self.policy(), tlb);
        self.retire_tables_in(&mut mmu, &slots, slot, tlb);
    }

    /// The memslots change, and their generation with them, before anybody can look at either. When the number wraps, MMIO
    /// entries of an older round must not come back to life (`kvm_mmu_invalidate_mmio_sptes()`).
    fn next_generation(&self, slots: &mut Memslots, in_flux: bool) {
        if slots.next_generation(in_flux) && self.policy().drops_mmio_on_wrap() {
            self.mmu_lock.lock().shadow_pages.drop_mmio(&self.tables);
        }
    }

    /// The second half (`kvm_commit_memory_region()`).
    pub(crate) fn slot_end(&self, id: SlotId, change: SlotChange, tlb: &mut dyn TlbFlush) {
        match self.policy().family() {
            Family::Rmap => self.zap_obsolete_pages(tlb),
            Family::Tdp => self.tdp_zap_retired_roots(tlb),
        }
        let mut slots = self.slots.write();
        self.next_generation(&mut slots, false);
        match (change, slots.get_mut(id)) {
            (SlotChange::Create { gfn, pages, hva, flags }, _) => {
                slots.insert(Memslot::new(id, gfn, u64::from(pages), hva, flags));
            }
            (SlotChange::Delete, _) => slots.remove(id),
            (SlotChange::Move { gfn }, Some(slot)) => {
                slot.gfn = gfn;
                slot.invalid = false;
                slot.tracked = PageSet::default();
            }
            (SlotChange::Flags(flags), Some(slot)) if slot.invalid => {
                slot.set_flags(flags);
                slot.tracked = PageSet::default();
                slot.invalid = false;
            }
            (SlotChange::Flags(flags), _) if flags.log_dirty => {
                drop(slots);
                self.expect_writes_to_slot(id, tlb);
            }
            (SlotChange::Flags(_), Some(slot)) => {
                let (first, pages) = (slot.gfn, slot.pages);
                drop(slots);
                self.zap_collapsible(id, first, pages, tlb);
            }
            (SlotChange::Move { .. } | SlotChange::Flags(_), None) => {}
        }
    }
}

/// The bit that tells the two roots of a VM apart, if it has two.
pub(crate) fn direct_bits(policy: &(impl Policy + ?Sized), vm: &VmConfig) -> StolenMask {
    match policy.family() {
        Family::Rmap => StolenMask::NONE,
        Family::Tdp => vm.stolen(),
    }
}

fn aliases_of_roots(policy: &(impl Policy + ?Sized), vm: &VmConfig) -> SmallVec<[Alias; 2]> {
    let direct = direct_bits(policy, vm);
    let roots = if direct.gfn_mask() == 0 { &Root::ALL[..1] } else { &Root::ALL };
    roots.iter().map(|root| root.alias(direct)).collect()
}
