//! What a target can be given, and how often each kind of op is drawn.

use crate::addr::StolenMask;
use crate::limits::{STOLEN_BITS, STRIDE};
use crate::program::{OpKind, OpKinds, ReclaimSet};

/// What a target can be given.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// Kinds of op worth generating.
    pub kinds: OpKinds,
    /// Whether ops may be split into begin and end.
    pub windows: bool,
    /// Whether a fault may be split where whole ops may not: it ends right after a few unmaps.
    pub held_faults: bool,
    /// Whether a fault may be split where other ops may not, and anything may fall between its halves.
    pub split_faults: bool,
    /// Whether private slots can be made.
    pub internal_slots: bool,
    /// What to unmap pages by; if there is none, the target has no choice or does not care.
    pub reclaims: ReclaimSet,
    /// Whether VMs may log writes by [`Logging::Pml`](crate::Logging::Pml).
    pub pml: bool,
    /// In one of how many VMs everything that is mapped goes with a memslot; 0 for none.
    pub slot_zap_all: u32,
    /// In one of how many VMs with one stolen bit that bit is the shared bit; 0 for none.
    pub shared_private: u32,
    /// Whether memslots may log writes.
    pub log_dirty: bool,
    /// Whether vCPUs may have dirty rings.
    pub dirty_rings: bool,
    /// How far apart frames may lie, in pages, so that leaves of 2 MiB and 1 GiB hold several; 1 if they must not.
    pub stride_max: u64,
    /// Stolen GPA bits are taken from this bit up …
    pub stolen_low: u8,
    /// … to this one. Above [`Levels::Four`](crate::Levels::Four)'s highest, some VMs have five levels.
    pub stolen_high: u8,
    /// How many there are, at most.
    pub stolen_bits_max: u32,
    /// Whether an access to a hole costs so much more than one to memory that few are worth making.
    pub few_holes: bool,
    /// vCPUs of every VM, 1 to [`VCPUS`](crate::limits::VCPUS); if it is open, each VM has as many as chance will have it.
    pub vcpus: Option<u8>,
    /// Ops in a generated program, at most.
    pub ops_max: u32,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            kinds: OpKinds::ALL,
            windows: true,
            held_faults: false,
            split_faults: false,
            internal_slots: true,
            reclaims: ReclaimSet::NONE,
            pml: true,
            slot_zap_all: 4,
            shared_private: 0,
            log_dirty: true,
            dirty_rings: true,
            stride_max: STRIDE,
            stolen_low: StolenMask::LOWEST_BIT,
            stolen_high: StolenMask::HIGHEST_BIT,
            stolen_bits_max: STOLEN_BITS as u32,
            few_holes: false,
            vcpus: None,
            ops_max: 48,
        }
    }
}

impl Profile {
    /// The same without the kinds for which `supports` says no.
    pub fn only(mut self, supports: impl Fn(OpKind) -> bool) -> Self {
        for kind in OpKind::ALL {
            if !supports(kind) {
                self.kinds = self.kinds.without(kind);
            }
        }
        self
    }

    pub(super) const fn splits_faults(&self) -> bool {
        self.windows || self.held_faults || self.split_faults
    }

    pub(super) const fn allows(&self, kind: OpKind) -> bool {
        self.kinds.contains(kind)
    }
}

/// How often each kind is drawn, before some are left out.
pub(super) const WEIGHTS: [(OpKind, u32); 39] = [
    (OpKind::Read, 16),
    (OpKind::Write, 20),
    (OpKind::Execute, 4),
    (OpKind::FaultBegin, 8),
    (OpKind::FaultEnd, 8),
    (OpKind::Prefault, 3),
    (OpKind::Unmap, 6),
    (OpKind::UnmapBegin, 4),
    (OpKind::UnmapEnd, 4),
    (OpKind::Collapse, 3),
    (OpKind::Age, 3),
    (OpKind::DirtyGet, 6),
    (OpKind::DirtyClear, 8),
    (OpKind::WriteProtect, 4),
    (OpKind::WriteTrack, 3),
    (OpKind::WriteUntrack, 2),
    (OpKind::SlotAliased, 1),
    (OpKind::Attributes, 3),
    (OpKind::AttributesEnd, 3),
    (OpKind::MemoryType, 3),
    (OpKind::ZapBegin, 3),
    (OpKind::ZapEnd, 3),
    (OpKind::NxRecover, 3),
    (OpKind::MmuPages, 2),
    (OpKind::SlotCreate, 5),
    (OpKind::SlotDelete, 3),
    (OpKind::SlotMove, 3),
    (OpKind::SlotFlags, 5),
    (OpKind::SlotEnd, 6),
    (OpKind::Backend, 2),
    (OpKind::WriteGpte, 5),
    (OpKind::GuestWalk, 4),
    (OpKind::GuestAccess, 8),
    (OpKind::GuestFlush, 2),
    (OpKind::ProtNone, 2),
    (OpKind::PageOut, 10),
    (OpKind::PageIn, 6),
    (OpKind::PageReady, 6),
    (OpKind::AsyncPfClear, 2),
];

/// The kinds that mean something only where the host pages out memory.
pub(super) const PAGING: [OpKind; 4] = [OpKind::PageOut, OpKind::PageIn, OpKind::PageReady, OpKind::AsyncPfClear];

/// The weight of [`OpKind::Translate`], which needs nothing of the rest.
pub(super) const TRANSLATE_WEIGHT: u32 = 2;
