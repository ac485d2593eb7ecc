//! The configuration of a VM: what a program states before its first op, and the window of frames it can name.

use crate::addr::{Alias, Gfn, Gpa, StolenBitError, StolenMask};
use crate::flush::BackendMode;
use crate::limits::{FRAMES, MAXPHYADDR_MAX, MAXPHYADDR_MIN, TOP_GFN, VCPUS};
use std::fmt;

/// How the hypervisor learns of writes to slots that are logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Logging {
    /// It write-protects pages and takes the fault.
    #[default]
    WriteProtect,
    /// The processor sets the dirty bit of an entry and logs the **raw** GPA (page-modification logging, SDM vol. 3C,
    /// 29.3.6). A writable entry whose dirty bit is clear promises no write that goes unnoticed.
    Pml,
}

/// How many levels the second-stage tables have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Levels {
    /// They translate 48 address bits.
    #[default]
    Four,
    /// They translate 57 address bits.
    Five,
}

impl Levels {
    /// The number, which is also the level of the root.
    #[inline]
    pub const fn count(self) -> u8 {
        match self {
            Levels::Four => 4,
            Levels::Five => 5,
        }
    }

    /// The highest legal stolen bit: the last that the root table translates.
    #[inline]
    pub const fn highest_bit(self) -> u8 {
        match self {
            Levels::Four => 47,
            Levels::Five => StolenMask::HIGHEST_BIT,
        }
    }
}

/// A VM as a program configures it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vm {
    stolen: StolenMask,
    vcpus: u8,
    base: Gfn,
    backend: BackendMode,
    logging: Logging,
    levels: Levels,
    maxphyaddr: u8,
}

/// Why a VM configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmError {
    /// A stolen bit is in an illegal place.
    Stolen(StolenBitError),
    /// Not 1 to [`VCPUS`] vCPUs.
    Vcpus(u64),
    /// The window of frames would end above [`TOP_GFN`].
    Base(u64),
    /// Not [`MAXPHYADDR_MIN`](crate::limits::MAXPHYADDR_MIN) to [`MAXPHYADDR_MAX`](crate::limits::MAXPHYADDR_MAX) bits of
    /// physical address.
    Maxphyaddr(u64),
}

impl fmt::Display for VmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stolen(error) => error.fmt(f),
            Self::Vcpus(n) => write!(f, "{n} vCPUs, but a VM has 1 to {VCPUS}"),
            Self::Base(base) => write!(
                f,
                "base {base:#x} puts the guest's {FRAMES} frames above gfn {TOP_GFN:#x}; use {:#x} or below",
                TOP_GFN - FRAMES as u64
            ),
            Self::Maxphyaddr(n) => {
                write!(
                    f,
                    "maxphyaddr {n}, but a guest has {MAXPHYADDR_MIN} to {MAXPHYADDR_MAX} bits of physical address"
                )
            }
        }
    }
}

impl std::error::Error for VmError {}

impl From<StolenBitError> for VmError {
    fn from(error: StolenBitError) -> Self {
        Self::Stolen(error)
    }
}

impl Default for Vm {
    /// One stolen bit (40), two vCPUs, a working range-flush back-end, and a window that straddles a leaf-table edge.
    fn default() -> Self {
        let stolen = StolenMask::new(&[40]).expect("bit 40 is legal");
        Self::new(stolen, 2, Self::DEFAULT_BASE, BackendMode::Works).expect("the default is legal")
    }
}

impl Vm {
    /// Gfn 0x1e0: the 64 frames of the window then lie on both sides of gfn 0x200, where one leaf table ends.
    pub const DEFAULT_BASE: Gfn = Gfn::new(0x1e0);

    /// A VM with the given stolen bits, vCPUs, first gfn of its window and initial flush back-end; its tables have as few
    /// levels as translate the stolen bits.
    ///
    /// # Errors
    /// A [`VmError`] if a number is out of range or a stolen bit lies within the window's gfns.
    pub fn new(stolen: StolenMask, vcpus: u8, base: Gfn, backend: BackendMode) -> Result<Self, VmError> {
        if vcpus == 0 || usize::from(vcpus) > VCPUS {
            return Err(VmError::Vcpus(u64::from(vcpus)));
        }
        if base.raw() > TOP_GFN - FRAMES as u64 {
            return Err(VmError::Base(base.raw()));
        }
        if let Some(bit) = stolen.bit_inside_frames(base.add(FRAMES as u64 - 1)) {
            return Err(StolenBitError::InsideFrames { bit }.into());
        }
        let levels = if stolen.bits().last().is_some_and(|&bit| bit > Levels::Four.highest_bit()) {
            Levels::Five
        } else {
            Levels::Four
        };
        Ok(Self { stolen, vcpus, base, backend, logging: Logging::default(), levels, maxphyaddr: MAXPHYADDR_MAX })
    }

    /// The same VM with other stolen bits, vCPUs, window or back-end, and more levels if the stolen bits need them.
    ///
    /// # Errors
    /// As [`Vm::new`].
    pub fn with(self, stolen: StolenMask, vcpus: u8, base: Gfn, backend: BackendMode) -> Result<Self, VmError> {
        let new = Self::new(stolen, vcpus, base, backend)?;
        let levels = self.levels.max(new.levels);
        Ok(Self { levels, logging: self.logging, maxphyaddr: self.maxphyaddr, ..new })
    }

    /// The same VM with tables of so many levels.
    ///
    /// # Errors
    /// [`StolenBitError::AboveRoot`] if they do not translate every stolen bit.
    pub fn with_levels(self, levels: Levels) -> Result<Self, VmError> {
        let highest = levels.highest_bit();
        match self.stolen.bits().last() {
            Some(&bit) if bit > highest => Err(StolenBitError::AboveRoot { bit, highest }.into()),
            _ => Ok(Self { levels, ..self }),
        }
    }

    /// The same VM with so many bits of guest physical address. Stolen bits may lie above them.
    ///
    /// # Errors
    /// [`VmError::Maxphyaddr`] if there cannot be so many.
    pub const fn with_maxphyaddr(self, maxphyaddr: u8) -> Result<Self, VmError> {
        if maxphyaddr < MAXPHYADDR_MIN || maxphyaddr > MAXPHYADDR_MAX {
            return Err(VmError::Maxphyaddr(maxphyaddr as u64));
        }
        Ok(Self { maxphyaddr, ..self })
    }

    /// The same VM with another way to log writes.
    #[must_use]
    pub const fn with_logging(self, logging: Logging) -> Self {
        Self { logging, ..self }
    }

    /// How many levels the second-stage tables have.
    #[inline]
    pub const fn levels(&self) -> Levels {
        self.levels
    }

    /// How many bits a guest physical address has, stolen bits aside (CPUID 80000008H).
    #[inline]
    pub const fn maxphyaddr(&self) -> u8 {
        self.maxphyaddr
    }

    /// How writes to logged slots are noticed.
    pub const fn logging(&self) -> Logging {
        self.logging
    }

    /// The stolen bits.
    #[inline]
    pub const fn stolen(&self) -> StolenMask {
        self.stolen
    }

    /// Number of vCPUs, 1 to [`VCPUS`].
    #[inline]
    pub const fn vcpus(&self) -> u8 {
        self.vcpus
    }

    /// First gfn of the window.
    #[inline]
    pub const fn base(&self) -> Gfn {
        self.base
    }

    /// The TLB flush back-end at the start.
    #[inline]
    pub const fn backend(&self) -> BackendMode {
        self.backend
    }

    /// The number of `gfn` within the window, or `None` if it lies outside.
    #[inline]
    pub fn frame(&self, gfn: Gfn) -> Option<usize> {
        gfn.offset_from(self.base).map(|offset| offset as usize).filter(|&frame| frame < FRAMES)
    }

    /// The gfn of frame number `frame`.
    #[inline]
    pub const fn gfn(&self, frame: usize) -> Gfn {
        self.base.add(frame as u64)
    }

    /// The GPA that names frame number `frame` with alias number `alias`.
    #[inline]
    pub fn gpa(&self, frame: usize, alias: usize) -> Gpa {
        self.stolen.join(self.gfn(frame), self.stolen.alias(alias))
    }

    /// Frame number and alias of `gpa`, or `None` if its frame lies outside the window.
    #[inline]
    pub fn locate(&self, gpa: Gpa) -> Option<(usize, Alias)> {
        let (gfn, alias) = self.stolen.split(gpa);
        Some((self.frame(gfn)?, alias))
    }

    /// The frames of `pages` pages from `gfn` that lie in the window.
    pub fn frames(&self, gfn: Gfn, pages: u64) -> FrameSet {
        self.frame(gfn).map_or(FrameSet::EMPTY, |frame| FrameSet::range(frame, pages as usize))
    }
}

/// A set of frames of the window, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct FrameSet(u64);

impl FrameSet {
    /// No frame.
    pub const EMPTY: FrameSet = FrameSet(0);
    /// Every frame of the window.
    pub const ALL: FrameSet = FrameSet(u64::MAX);

    /// The frames whose bits are set in `bits`.
    #[inline]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// One bit a frame.
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Just `frame`.
    #[inline]
    pub const fn one(frame: usize) -> Self {
        Self(1 << frame)
    }

    /// `pages` frames from `frame`, cut off at the end of the window.
    #[inline]
    pub const fn range(frame: usize, pages: usize) -> Self {
        if frame >= FRAMES || pages == 0 {
            return Self::EMPTY;
        }
        let ones = if pages >= FRAMES { u64::MAX } else { (1 << pages) - 1 };
        Self(ones << frame)
    }

    /// Whether `frame` is in the set.
    #[inline]
    pub const fn contains(self, frame: usize) -> bool {
        self.0 >> frame & 1 != 0
    }

    /// Whether the set is empty.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many frames it holds.
    #[inline]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Frames in either.
    #[inline]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Frames in both.
    #[inline]
    pub const fn intersect(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Frames of `self` that are not in `other`.
    #[inline]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The same frames as seen from `to` instead of `from`; what leaves the window is lost.
    #[inline]
    pub const fn moved(self, from: usize, to: usize) -> Self {
        if to >= from { Self(self.0 << (to - from)) } else { Self(self.0 >> (from - to)) }
    }

    /// The lowest frame.
    #[inline]
    pub const fn first(self) -> Option<usize> {
        if self.0 == 0 { None } else { Some(self.0.trailing_zeros() as usize) }
    }

    /// The frames, ascending.
    #[inline]
    pub fn iter(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let frame = Self(left).first()?;
            left &= left - 1;
            Some(frame)
        })
    }
}

impl fmt::Debug for FrameSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
