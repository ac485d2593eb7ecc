//! A VM with few of everything, and what may be done to it.

use crate::addr::{Gfn, Level, StolenMask};
use crate::limits::{DIRTY_RING, DIRTY_RING_MIN, SCOPE_FRAMES, SCOPE_SLOTS, STRIDE, VCPUS};
use crate::program::{BackendMode, Logging, OpKind, OpKinds, VmConfig};
use std::fmt;

/// A VM with few of everything, and what may be done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    pub(super) vm: VmConfig,
    pub(super) frames: usize,
    pub(super) slots: usize,
    pub(super) kinds: OpKinds,
    pub(super) folded: bool,
}

/// Why a scope is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeError {
    /// Not 1 to [`SCOPE_FRAMES`] frames.
    Frames(usize),
    /// Not 1 to [`SCOPE_SLOTS`] memslots.
    Slots(usize),
    /// Not 1, 2 or 4 aliases.
    Aliases(usize),
    /// Not 1 to [`VCPUS`] vCPUs.
    Vcpus(u8),
    /// The distance between frames is no power of two from 2 to [`STRIDE`].
    Stride(u64),
    /// The entries of a dirty ring are no power of two from [`DIRTY_RING_MIN`] to [`DIRTY_RING`].
    DirtyRing(u8),
}

impl fmt::Display for ScopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frames(found) => write!(f, "frames: expected 1 to {SCOPE_FRAMES}, found {found}"),
            Self::Slots(found) => write!(f, "memslots: expected 1 to {SCOPE_SLOTS}, found {found}"),
            Self::Aliases(found) => write!(f, "aliases: expected 1, 2 or 4, found {found}"),
            Self::Vcpus(found) => write!(f, "vCPUs: expected 1 to {VCPUS}, found {found}"),
            Self::DirtyRing(found) => {
                write!(f, "dirty ring: expected a power of two from {DIRTY_RING_MIN} to {DIRTY_RING}, found {found}")
            }
            Self::Stride(found) => write!(f, "stride: expected a power of two from 2 to {STRIDE}, found {found}"),
        }
    }
}

impl std::error::Error for ScopeError {}

/// The first gfn of a leaf table: with three frames or more, that of the last one.
const TABLE_EDGE: Gfn = Gfn::new(0x200);

impl Scope {
    /// `frames` frames that an edge between two leaf tables divides if there are three or more; `slots` memslots, the last of
    /// them private if there are two or more, and as many blocks of host pages; `aliases` names of each frame.
    ///
    /// # Errors
    /// A [`ScopeError`] if there are too many or too few of something.
    pub fn new(frames: usize, slots: usize, aliases: usize, vcpus: u8) -> Result<Self, ScopeError> {
        if frames == 0 || frames > SCOPE_FRAMES {
            return Err(ScopeError::Frames(frames));
        }
        if slots == 0 || slots > SCOPE_SLOTS {
            return Err(ScopeError::Slots(slots));
        }
        let bits: &[u8] = match aliases {
            1 => &[],
            2 => &[40],
            4 => &[40, 41],
            _ => return Err(ScopeError::Aliases(aliases)),
        };
        let stolen = StolenMask::new(bits).map_err(|_| ScopeError::Aliases(aliases))?;
        let base = if frames < 3 { VmConfig::DEFAULT_BASE } else { Gfn::new(TABLE_EDGE.raw() + 1 - frames as u64) };
        let vm = VmConfig::new(stolen, vcpus, base, BackendMode::Works).map_err(|_| ScopeError::Vcpus(vcpus))?;
        Ok(Self { vm, frames, slots, kinds: OpKinds::ALL, folded: true })
    }

    /// What is explored when nothing else is asked for, with the ops of the longest programs: the edges of slots, of tables and
    /// of sets of stolen bits; everything at once; what races; logging by the processor; dirty rings; zaps that yield;
    /// memslots with which all that is mapped goes; and async page faults. Each takes seconds.
    pub fn standard() -> [(Scope, usize); 8] {
        use OpKind::{
            AsyncPfClear, Backend, DirtyClear, DirtyGet, FaultBegin, FaultEnd, PageIn, PageOut, PageReady, Read,
            SlotCreate, SlotDelete, SlotEnd, SlotFlags, SlotMove, Unmap, Write, WriteProtect, WriteTrack, ZapBegin,
            ZapEnd,
        };
        let scope = |frames, slots, aliases, vcpus| Self::new(frames, slots, aliases, vcpus).expect("a legal scope");
        let edges =
            [SlotCreate, SlotDelete, SlotMove, SlotFlags, Read, Write, Unmap, DirtyClear, WriteProtect, Backend];
        let races = [
            SlotCreate, SlotDelete, SlotFlags, Read, Write, FaultBegin, FaultEnd, Unmap, DirtyGet, DirtyClear,
            WriteTrack, Backend,
        ];
        let rings = [SlotCreate, SlotFlags, Read, Write, DirtyGet, DirtyClear];
        let yields = [SlotCreate, Read, ZapBegin, ZapEnd];
        let obsolete = [SlotCreate, SlotDelete, SlotEnd, Read];
        let waits = [SlotCreate, SlotDelete, Read, PageOut, PageIn, PageReady, AsyncPfClear];
        let ringed = |scope: Scope| scope.with_dirty_ring(DIRTY_RING_MIN).expect("the smallest ring");
        [
            (scope(3, 2, 4, 1).only(&edges), 3),
            (scope(2, 2, 2, 2), 3),
            (scope(2, 2, 2, 1).only(&races), 4),
            (scope(2, 2, 2, 1).with_logging(Logging::Pml), 3),
            (ringed(scope(2, 1, 2, 1).only(&rings)), 4),
            (scope(2, 1, 2, 1).only(&yields), 5),
            (scope(2, 2, 2, 1).only(&obsolete).with_slot_zap_all(), 5),
            (scope(1, 1, 2, 1).only(&waits).with_async_pf(), 6),
        ]
    }

    /// The same with ops of these kinds only. Changes of memslots, faults, invalidations and changes of attributes
    /// also come in halves if [`OpKind::SlotEnd`], [`OpKind::FaultBegin`], [`OpKind::UnmapBegin`] and
    /// [`OpKind::AttributesEnd`] are among them; faults are begun for the kinds
    /// of access given.
    pub fn only(self, kinds: &[OpKind]) -> Self {
        self.restrict(OpKinds::of(kinds))
    }

    /// The same without the kinds that are not in `kinds`.
    pub fn restrict(self, kinds: OpKinds) -> Self {
        Self { kinds: self.kinds.intersect(kinds), ..self }
    }

    /// The same with every program, not one of each that differ in names only.
    pub fn unfolded(self) -> Self {
        Self { folded: false, ..self }
    }

    /// The same with another way to log writes.
    pub fn with_logging(self, logging: Logging) -> Self {
        Self { vm: self.vm.with_logging(logging), ..self }
    }

    /// The same where everything that is mapped goes with a memslot.
    pub fn with_slot_zap_all(self) -> Self {
        Self { vm: self.vm.with_slot_zap_all(true), ..self }
    }

    /// The same whose vCPUs have dirty rings of so many entries.
    ///
    /// # Errors
    /// [`ScopeError::DirtyRing`] if no VM has such rings.
    pub fn with_dirty_ring(self, entries: u8) -> Result<Self, ScopeError> {
        let vm = self.vm.with_dirty_ring(entries).map_err(|_| ScopeError::DirtyRing(entries))?;
        Ok(Self { vm, ..self })
    }

    /// The same whose host pages out memory, of which its guest is told.
    #[must_use]
    pub fn with_async_pf(self) -> Self {
        Self { vm: self.vm.with_async_pf(true), ..self }
    }

    /// The same with frames `stride` pages apart, from a 1 GiB edge. With 256, two frames make a large leaf. Large leaves are not
    /// executable.
    ///
    /// # Errors
    /// [`ScopeError::Stride`] if no VM has such a stride.
    pub fn with_stride(self, stride: u64) -> Result<Self, ScopeError> {
        let vm =
            self.vm.with_frames(Gfn::new(Level::Page1G.pages()), stride).map_err(|_| ScopeError::Stride(stride))?;
        Ok(Self { vm: vm.with_nx_huge_pages(true), ..self })
    }

    /// The VM of its programs.
    pub fn vm(&self) -> &VmConfig {
        &self.vm
    }
}
