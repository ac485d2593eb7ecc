//! What a worker can carry out: it says so when it is ready, and both sides go by the same rules.

use gpa_model::generate::Profile;
use gpa_model::{Capabilities, Levels, Logging, Op, OpKind, OpKinds, SlotChange, VmConfig};

/// What one worker can do, with its kernel as it is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Kinds of op, whole.
    pub kinds: OpKinds,
    /// Memslot changes can be held between their two halves.
    pub slot_halves: bool,
    /// So can invalidations.
    pub unmap_halves: bool,
    /// KVM's own memslots can be made.
    pub internal_slots: bool,
    /// Frames can lie so far apart that large leaves hold several.
    pub strides: bool,
    /// vCPUs can have dirty rings.
    pub dirty_rings: bool,
    /// The lowest stolen bit.
    pub stolen_low: u8,
    /// The highest.
    pub stolen_high: u8,
    /// What is seen of the kernel.
    pub shows: Capabilities,
}

impl Default for Abilities {
    /// Nothing.
    fn default() -> Self {
        Self {
            kinds: OpKinds::of(&[]),
            slot_halves: false,
            unmap_halves: false,
            internal_slots: false,
            strides: false,
            dirty_rings: false,
            stolen_low: 39,
            stolen_high: 46,
            shows: Capabilities::EXITS,
        }
    }
}

impl Abilities {
    /// Whether it can have such a VM. Whether everything is zapped with a memslot, and how wide the guest's addresses are, no guest here
    /// can tell.
    pub fn supports_vm(&self, vm: &VmConfig) -> bool {
        vm.stolen().bits().iter().all(|bit| (self.stolen_low..=self.stolen_high).contains(bit))
            && vm.levels() == Levels::Four
            && vm.logging() == Logging::WriteProtect
            && !vm.nx_huge_pages()
            && !vm.async_pf()
            && (vm.stride() == 1 || self.strides)
            && (vm.dirty_ring().is_none() || self.dirty_rings)
    }

    /// Whether it can carry out `op`.
    pub fn supports(&self, op: &Op) -> bool {
        self.kinds.contains(op.kind())
            && match *op {
                Op::Slot { id, .. } | Op::SlotAliased { id, .. } => self.internal_slots || !id.is_internal(),
                Op::SlotBegin { id, change } => {
                    self.slot_halves && !id.is_internal() && !matches!(change, SlotChange::Create { .. })
                }
                Op::SlotEnd => self.slot_halves,
                Op::UnmapBegin { .. } | Op::UnmapEnd { .. } => self.unmap_halves,
                Op::AttributesBegin { .. } | Op::AttributesEnd => false,
                _ => true,
            }
    }

    /// What programs for it are made of.
    pub fn profile(&self) -> Profile {
        let profile = Profile {
            windows: self.unmap_halves,
            internal_slots: self.internal_slots,
            pml: false,
            dirty_rings: self.dirty_rings,
            split_faults: !self.unmap_halves && self.kinds.contains(OpKind::FaultBegin),
            stride_max: if self.strides { VmConfig::STRIDE_1G } else { 1 },
            stolen_low: self.stolen_low,
            stolen_high: self.stolen_high,
            ..Profile::default()
        };
        // Where a hole was seen before its memslot came, Linux maps a tracked frame writable (K6): that is found in most programs that track,
        // and hides whatever else there is.
        let is_blunt = |kind| matches!(kind, OpKind::WriteTrack | OpKind::WriteUntrack);
        profile
            .only(|kind| self.kinds.contains(kind) && !is_blunt(kind) && (kind != OpKind::SlotEnd || self.slot_halves))
    }
}
