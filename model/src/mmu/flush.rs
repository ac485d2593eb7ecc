//! The TLB flush back-end a target calls, and the record of what it asked for.

use crate::addr::Gpa;
use crate::limits::VCPUS;
use crate::program::BackendMode;

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

/// What a target calls to flush TLBs while it carries out one op.
#[derive(Debug, Default)]
pub struct FlushBackend {
    mode: BackendMode,
    ranges: u32,
    log: Vec<Flush>,
    freed_after: Option<usize>,
}

impl FlushBackend {
    /// Forget the record and count of the last op; from now on behave as `mode`.
    pub fn begin_op(&mut self, mode: BackendMode) {
        self.mode = mode;
        self.ranges = 0;
        self.log.clear();
        self.freed_after = None;
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
        self.log.push(Flush::Range { gpa, pages, ok });
        if ok { Ok(()) } else { Err(RangeFlushFailed) }
    }

    /// Flush everything on every vCPU.
    pub fn all(&mut self) {
        self.on(VcpuSet::ALL);
    }

    /// Flush everything on some vCPUs.
    pub fn on(&mut self, vcpus: VcpuSet) {
        self.log.push(Flush::All { vcpus });
    }

    /// A table page is free: from now on it may be made into something else. To be told is up to the target.
    pub fn freed(&mut self) {
        self.freed_after.get_or_insert(self.log.len());
    }

    /// How many flushes had been asked for during the current op when the first table page was freed, if one was.
    pub const fn freed_after(&self) -> Option<usize> {
        self.freed_after
    }

    /// Note a flush that somebody else was asked for, with what came of it: that of a recorded target.
    pub fn observed(&mut self, flush: Flush) {
        self.log.push(flush);
    }

    /// What was asked for during the current op, in order.
    pub fn log(&self) -> &[Flush] {
        &self.log
    }
}
