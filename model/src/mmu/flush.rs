//! The TLB flush back-end that a target calls, and the ordered log of one op: flushes, freed table pages, and the tables as they
//! are at each of these points.

use super::Spte;
use crate::addr::Gpa;
use crate::limits::VCPUS;
use crate::program::BackendMode;
use std::ops::Range;

/// Which vCPUs a flush reaches, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VcpuSet(u8);

impl VcpuSet {
    /// Every vCPU.
    pub const ALL: VcpuSet = VcpuSet((1 << VCPUS) - 1);
    /// No vCPU.
    pub const NONE: VcpuSet = VcpuSet(0);

    /// Just `vcpu`.
    #[inline]
    pub const fn one(vcpu: u8) -> Self {
        Self(1 << vcpu)
    }

    /// The first `vcpus` vCPUs.
    #[inline]
    pub const fn first(vcpus: u8) -> Self {
        Self((1 << vcpus) - 1)
    }

    /// One bit a vCPU.
    #[inline]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Members of `self` that are not in `other`.
    #[inline]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is none.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The vCPUs, ascending.
    #[inline]
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..VCPUS as u8).filter(move |vcpu| self.0 >> vcpu & 1 != 0)
    }
}

/// One flush that a target asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flush {
    /// Everything on the given vCPUs (`kvm_flush_remote_tlbs()`).
    All {
        /// Who was reached.
        vcpus: VcpuSet,
    },
    /// `pages` pages from `gpa`, on every vCPU: exactly this alias and no other.
    Range {
        /// First address, stolen bits included.
        gpa: Gpa,
        /// How many pages.
        pages: u64,
        /// Whether the back-end did it.
        ok: bool,
    },
}

/// The back-end refused or does not exist: nothing was flushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RangeFlushFailed;

/// A translation in the tables at some point within an op.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// Number of the alias.
    pub alias: u8,
    /// The frame.
    pub frame: u8,
    /// What translates it.
    pub spte: Spte,
}

/// An entry of the ordered log of an op.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TlbEvent {
    /// TLBs were flushed, or the back-end failed to.
    Flush(Flush),
    /// The tables as they are now: these [samples](FlushBackend::samples), and every other frame is absent.
    Tables(Range<usize>),
    /// A table page was freed. Its memory may become another's from here on.
    Freed,
}

/// What a target calls to flush TLBs while it carries out one op, and the ordered log of that op.
///
/// A processor may fill its TLB from the tables at any time. Whether a flush came after the change that it is for is therefore
/// seen only if the tables are known at the flush: a target that calls [`FlushBackend::tables`] before each flush and each
/// free claims [`Capabilities::order`](super::Capabilities::order). Where they are not known, flushes are taken to follow the
/// changes.
#[derive(Debug, Default)]
pub struct FlushBackend {
    mode: BackendMode,
    ranges: u32,
    flushes: Vec<Flush>,
    events: Vec<TlbEvent>,
    samples: Vec<Sample>,
}

impl FlushBackend {
    /// Forget the log of the last op; from now on behave as `mode`.
    pub fn begin_op(&mut self, mode: BackendMode) {
        self.mode = mode;
        self.ranges = 0;
        self.flushes.clear();
        self.events.clear();
        self.samples.clear();
    }

    /// Whether range flushes exist at all (`kvm_available_flush_tlb_with_range()`).
    #[inline]
    pub const fn has_range(&self) -> bool {
        !matches!(self.mode, BackendMode::Absent)
    }

    /// Flush `pages` pages from `gpa` on every vCPU. Only this alias is flushed.
    ///
    /// # Errors
    /// [`RangeFlushFailed`] if the back-end is absent or fails; nothing was flushed then.
    pub fn range(&mut self, gpa: Gpa, pages: u64) -> Result<(), RangeFlushFailed> {
        self.ranges += 1;
        let ok = match self.mode {
            BackendMode::Works => true,
            BackendMode::FailsFirst => self.ranges != 1,
            BackendMode::FailsSecond => self.ranges != 2,
            BackendMode::Absent | BackendMode::FailsAll => false,
        };
        self.observed(Flush::Range { gpa, pages, ok });
        if ok { Ok(()) } else { Err(RangeFlushFailed) }
    }

    /// Flush everything on every vCPU.
    pub fn all(&mut self) {
        self.on(VcpuSet::ALL);
    }

    /// Flush everything on some vCPUs.
    pub fn on(&mut self, vcpus: VcpuSet) {
        self.observed(Flush::All { vcpus });
    }

    /// Note that a table page is free: from now on it may be made into something else.
    pub fn freed(&mut self) {
        self.events.push(TlbEvent::Freed);
    }

    /// Note the tables as they are now. `walk` visits each frame that is mapped: the number of the alias, the frame, what
    /// translates it.
    pub fn tables(&mut self, walk: impl FnOnce(&mut dyn FnMut(usize, usize, Spte))) {
        let start = self.samples.len();
        walk(&mut |alias, frame, spte| self.samples.push(Sample { alias: alias as u8, frame: frame as u8, spte }));
        self.events.push(TlbEvent::Tables(start..self.samples.len()));
    }

    /// Note a flush that another back-end was asked for, with its result: that of a recorded target.
    pub fn observed(&mut self, flush: Flush) {
        self.flushes.push(flush);
        self.events.push(TlbEvent::Flush(flush));
    }

    /// The flushes of the current op, in order.
    pub fn log(&self) -> &[Flush] {
        &self.flushes
    }

    /// Everything that was noted of the current op, in order.
    pub fn events(&self) -> &[TlbEvent] {
        &self.events
    }

    /// What [`TlbEvent::Tables`] points into.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }
}
