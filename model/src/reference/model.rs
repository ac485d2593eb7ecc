//! The reference model: from memslots and host mappings to what the guest is entitled to find at a GPA.
//!
//! It has no page table, no TLB and no locks. What it keeps beside the memslots is only what a program leaves open: the
//! memslot change, invalidations and faults in progress, the pages that vCPUs wait for, and what must or may stand in the dirty log.

use super::async_pf::AsyncPf;
use super::flux::Invalidated;
use super::memory_attributes::MemoryAttributes;
use super::slot::{PendingChange, Slot};
use super::stale_gpte::{GpteWrites, StaleGpte};
use crate::addr::Gpa;
use crate::addr::HostPage;
use crate::frame_set::FrameSet;
use crate::limits::{FRAMES, SLOTS, VCPUS};
use crate::program::{Access, HostPageRange, SlotId, VmConfig};
use std::hash::{Hash, Hasher};

#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct PendingFault {
    pub(super) gpa: Gpa,
    pub(super) access: Access,
    pub(super) raced: bool,
    pub(super) hole_at_begin: bool,
}

/// The reference model of one VM.
#[derive(Clone, Debug)]
pub struct Model {
    pub(super) vm: VmConfig,
    pub(super) slots: [Option<Slot>; SLOTS],
    pub(super) slot_of: [u8; FRAMES],
    pub(super) alias_holes: FrameSet,
    pub(super) change: Option<PendingChange>,
    pub(super) faults: [Option<PendingFault>; VCPUS],
    pub(super) log_must: FrameSet,
    pub(super) log_may: FrameSet,
    /// Entries in the dirty ring of each vCPU, at most.
    pub(super) ring_may: [u8; VCPUS],
    pub(super) tracked: FrameSet,
    /// Frames that were tables on the way of an access: writes to them may be emulated.
    pub(super) shadowed: FrameSet,
    pub(super) stale: Vec<StaleGpte>,
    pub(super) gpte_writes: GpteWrites,
    /// The pages that vCPUs wait for.
    pub(super) async_pf: Vec<AsyncPf>,
    pub(super) memory_attributes: MemoryAttributes,
    pub(super) invalidated: Invalidated,
    /// The frames of the zap that has begun and not ended.
    pub(super) zapping: Option<FrameSet>,
}

pub(super) const NO_SLOT: u8 = u8::MAX;

impl Model {
    /// A VM without memslots.
    pub fn new(vm: &VmConfig) -> Self {
        Self {
            vm: *vm,
            slots: [None; SLOTS],
            slot_of: [NO_SLOT; FRAMES],
            alias_holes: FrameSet::ALL,
            change: None,
            faults: [None; VCPUS],
            log_must: FrameSet::EMPTY,
            log_may: FrameSet::EMPTY,
            ring_may: [0; VCPUS],
            tracked: FrameSet::EMPTY,
            shadowed: FrameSet::EMPTY,
            stale: Vec::new(),
            gpte_writes: GpteWrites::default(),
            async_pf: Vec::new(),
            memory_attributes: MemoryAttributes::default(),
            invalidated: Invalidated::default(),
            zapping: None,
        }
    }

    /// Take in what tells this state of the VM from others.
    pub(crate) fn hash_state(&self, hasher: &mut impl Hasher) {
        // What follows from the memslots is left out.
        let Self {
            vm: _,
            slots,
            slot_of: _,
            alias_holes: _,
            change,
            faults,
            log_must,
            log_may,
            ring_may,
            tracked,
            memory_attributes,
            invalidated,
            zapping,
            shadowed,
            stale,
            gpte_writes,
            async_pf,
        } = self;
        (slots, change, faults, invalidated, zapping).hash(hasher);
        (log_must, log_may, ring_may, tracked, memory_attributes).hash(hasher);
        (shadowed, stale, gpte_writes, async_pf).hash(hasher);
    }

    /// The VM.
    pub fn vm(&self) -> &VmConfig {
        &self.vm
    }

    /// Whether a memslot change has begun and not ended.
    pub fn slot_change_pending(&self) -> bool {
        self.change.is_some()
    }

    /// Whether `vcpu` is inside a fault that has not ended.
    pub fn fault_pending(&self, vcpu: u8) -> bool {
        self.faults[usize::from(vcpu)].is_some()
    }

    /// How many vCPUs are inside a fault that has not ended.
    pub fn faults_pending(&self) -> usize {
        self.faults.iter().flatten().count()
    }

    /// The address of the fault that `vcpu` is inside of.
    pub fn pending_fault(&self, vcpu: u8) -> Option<(Gpa, Access)> {
        self.faults[usize::from(vcpu)].map(|fault| (fault.gpa, fault.access))
    }

    /// The frames of slot `id`, if it exists.
    pub fn slot_frames(&self, id: SlotId) -> FrameSet {
        self.slots[id.index()].map_or(FrameSet::EMPTY, |slot| slot.frames())
    }

    /// The frames of user slots that log dirty pages.
    pub fn logged_frames(&self) -> FrameSet {
        let logged = self.slots.iter().flatten().filter(|slot| slot.flags.log_dirty);
        logged.fold(FrameSet::EMPTY, |set, slot| set.union(slot.frames()))
    }

    /// The frames whose aliases are holes: those without a slot, and those of private slots.
    pub fn alias_holes(&self) -> FrameSet {
        self.alias_holes
    }

    /// What divides the frames, so that no leaf may translate both sides.
    pub fn memory_attributes(&self) -> &MemoryAttributes {
        &self.memory_attributes
    }

    pub(super) fn slot_at(&self, frame: usize) -> Option<(SlotId, &Slot)> {
        let index = self.slot_of[frame];
        let slot = self.slots.get(usize::from(index))?.as_ref()?;
        Some((SlotId::new(index)?, slot))
    }

    /// The frames that any page of `range` backs.
    pub fn frames_of(&self, range: HostPageRange) -> FrameSet {
        let (start, end) = (self.vm.hva_index(range.start), self.vm.hva_index(HostPage::new(range.end())));
        let mut frames = FrameSet::EMPTY;
        for slot in self.slots.iter().flatten() {
            let first = self.vm.hva_index(slot.hva);
            let (low, high) = (start.max(first), end.min(first + usize::from(slot.frames)));
            if low < high {
                frames = frames.union(FrameSet::range(usize::from(slot.frame) + low - first, high - low));
            }
        }
        frames
    }

    pub(super) fn frames_at(&self, gpa: Gpa) -> FrameSet {
        self.vm.locate(gpa).map_or(FrameSet::EMPTY, |(frame, _)| FrameSet::one(frame))
    }

    pub(super) fn race_faults(&mut self) {
        for fault in self.faults.iter_mut().flatten() {
            fault.raced = true;
        }
    }
}
