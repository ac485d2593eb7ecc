//! The configuration of a VM: what a program states before its first op, and the window of frames it can name.

use super::vm_error::VmError;
use super::{Aliasing, BackendMode, GuestPaging};
use crate::addr::{Alias, Gfn, Gpa, HostPage, Level, StolenBitError, StolenMask};
use crate::frame_set::FrameSet;
use crate::limits::{DIRTY_RING, DIRTY_RING_MIN, FRAMES, MAXPHYADDR_MAX, MAXPHYADDR_MIN, STRIDE, TOP_GFN, VCPUS};
use crate::variants::all;
use std::num::NonZeroU8;
use strum::{EnumCount, IntoStaticStr, VariantArray};

/// How the hypervisor learns of writes to slots that are logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, EnumCount, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Logging {
    /// It write-protects pages and takes the fault.
    #[default]
    WriteProtect,
    /// The processor sets the dirty bit of an entry and logs the **raw** GPA (page-modification logging, SDM vol. 3C,
    /// 29.3.6). A writable entry whose dirty bit is clear promises no write that goes unnoticed.
    Pml,
}

/// How many levels the second-stage tables have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, EnumCount, VariantArray, IntoStaticStr)]
pub enum Levels {
    /// They translate 48 address bits.
    #[default]
    #[strum(serialize = "4")]
    Four,
    /// They translate 57 address bits.
    #[strum(serialize = "5")]
    Five,
}

impl Logging {
    /// All of them.
    pub const ALL: [Logging; Logging::COUNT] = all(Logging::VARIANTS);

    /// The word for it in the text format.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl Levels {
    /// All of them.
    pub const ALL: [Levels; Levels::COUNT] = all(Levels::VARIANTS);

    /// The word for it in the text format.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The number, which is also the level of the root.
    #[inline]
    pub const fn count(self) -> u8 {
        match self {
            Levels::Four => 4,
            Levels::Five => 5,
        }
    }

    /// The fewest that translate every bit of `stolen`.
    fn translating(stolen: StolenMask) -> Self {
        let above = |&bit: &u8| bit > Levels::Four.highest_bit();
        if stolen.bits().last().is_some_and(above) { Levels::Five } else { Levels::Four }
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
///
/// Its frames are a window of [`FRAMES`] gfns, `stride` pages apart. Each stands for a block of `stride` pages that ops treat
/// alike; what is looked at is its first page. With a stride of 1 the window is small and its frames are all there is; with a
/// stride of 64 eight frames lie in each 2 MiB, with 32768 in each 1 GiB, so that a set of frames still is one machine word
/// and leaves of every level have several frames. Gfns, hvas and page counts are real numbers all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VmConfig {
    stolen: StolenMask,
    vcpus: u8,
    base: Gfn,
    stride_shift: u8,
    backend: BackendMode,
    logging: Logging,
    levels: Levels,
    maxphyaddr: u8,
    paging: GuestPaging,
    nx_huge_pages: bool,
    slot_zap_all: bool,
    dirty_ring: Option<NonZeroU8>,
    async_pf: bool,
    aliasing: Aliasing,
}

impl Default for VmConfig {
    /// One stolen bit (40), two vCPUs, a working range-flush back-end, and a window that straddles a leaf-table edge.
    fn default() -> Self {
        let stolen = StolenMask::new(&[40]).expect("bit 40 is legal");
        Self::new(stolen, 2, Self::DEFAULT_BASE, BackendMode::Works).expect("the default is legal")
    }
}

impl VmConfig {
    /// Gfn 0x1e0: the 64 frames of the window then lie on both sides of gfn 0x200, where one leaf table ends.
    pub const DEFAULT_BASE: Gfn = Gfn::new(0x1e0);
    /// The stride by which eight frames lie in each 2 MiB.
    pub const STRIDE_2M: u64 = Level::Page2M.pages() / 8;
    /// The stride by which all frames lie in 1 GiB, and each is eight times 2 MiB.
    pub const STRIDE_MIXED: u64 = Level::Page1G.pages() / FRAMES as u64;
    /// The stride by which eight frames lie in each 1 GiB.
    pub const STRIDE_1G: u64 = Level::Page1G.pages() / 8;

    /// A VM with the given stolen bits, vCPUs, first gfn of its window and initial flush back-end. Its stride is 1, and its
    /// tables have as few levels as translate the stolen bits.
    ///
    /// # Errors
    /// A [`VmError`] if a number is out of range or a stolen bit lies within the window's gfns.
    pub fn new(stolen: StolenMask, vcpus: u8, base: Gfn, backend: BackendMode) -> Result<Self, VmError> {
        let (logging, levels, paging) = (Logging::default(), Levels::default(), GuestPaging::default());
        Self {
            stolen,
            vcpus,
            base,
            stride_shift: 0,
            backend,
            logging,
            levels,
            maxphyaddr: MAXPHYADDR_MAX,
            paging,
            nx_huge_pages: false,
            slot_zap_all: false,
            dirty_ring: None,
            async_pf: false,
            aliasing: Aliasing::SamePage,
        }
        .checked()
    }

    fn checked(self) -> Result<Self, VmError> {
        let (vcpus, base, stride) = (self.vcpus, self.base.raw(), self.stride());
        if vcpus == 0 || usize::from(vcpus) > VCPUS {
            return Err(VmError::Vcpus(u64::from(vcpus)));
        }
        if self.base.align_down(stride) != self.base {
            return Err(VmError::BaseOffStride(base, stride));
        }
        if base > TOP_GFN - FRAMES as u64 * stride {
            return Err(VmError::Base(base, stride));
        }
        self.stolen.check_leaves(self.largest_leaf())?;
        if let Some(bit) = self.stolen.bit_inside_frames(self.gfn(FRAMES - 1).add(stride - 1)) {
            return Err(StolenBitError::InsideFrames { bit }.into());
        }
        let bits = self.stolen.bits().len();
        if self.aliasing == Aliasing::SharedPrivate && bits != 1 {
            return Err(VmError::Aliasing(bits));
        }
        let levels = self.levels.max(Levels::translating(self.stolen));
        Ok(Self { levels, ..self })
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

    /// The same VM with frames `stride` pages apart, from `base`.
    ///
    /// # Errors
    /// A [`VmError`] if the stride is no power of two up to [`STRIDE`], if the base is no multiple of it or too high, or if
    /// a stolen bit lies within what a table of the largest leaves that are now possible translates.
    pub fn with_frames(self, base: Gfn, stride: u64) -> Result<Self, VmError> {
        if !stride.is_power_of_two() || stride > STRIDE {
            return Err(VmError::Stride(stride));
        }
        Self { base, stride_shift: stride.trailing_zeros() as u8, ..self }.checked()
    }

    /// The same VM with other stolen bits, and more levels if they need them.
    ///
    /// # Errors
    /// A [`VmError`] if one of them is illegal here.
    pub fn with_stolen(self, stolen: StolenMask) -> Result<Self, VmError> {
        Self { stolen, ..self }.checked()
    }

    /// The same VM with another number of vCPUs.
    ///
    /// # Errors
    /// [`VmError::Vcpus`] if a VM cannot have so many.
    pub fn with_vcpus(self, vcpus: u8) -> Result<Self, VmError> {
        Self { vcpus, ..self }.checked()
    }

    /// The same VM with another flush back-end at the start.
    #[must_use]
    pub const fn with_backend(self, backend: BackendMode) -> Self {
        Self { backend, ..self }
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

    /// The same VM with a guest that translates its addresses another way.
    #[must_use]
    pub const fn with_paging(self, paging: GuestPaging) -> Self {
        Self { paging, ..self }
    }

    /// How the guest translates its addresses.
    #[inline]
    pub const fn paging(&self) -> GuestPaging {
        self.paging
    }

    /// The same VM with leaves above 4 KiB that are executable or, because of a flaw of the processor, must not be
    /// (`nx_huge_pages`, CVE-2018-12207).
    #[must_use]
    pub const fn with_nx_huge_pages(self, nx_huge_pages: bool) -> Self {
        Self { nx_huge_pages, ..self }
    }

    /// Whether no leaf above 4 KiB may be executable.
    #[inline]
    pub const fn nx_huge_pages(&self) -> bool {
        self.nx_huge_pages
    }

    /// The same VM in which everything that is mapped goes with a memslot, or only what maps that memslot
    /// (`KVM_X86_QUIRK_SLOT_ZAP_ALL`).
    #[must_use]
    pub const fn with_slot_zap_all(self, slot_zap_all: bool) -> Self {
        Self { slot_zap_all, ..self }
    }

    /// Whether everything that is mapped goes when a memslot is deleted or moved. The guest cannot tell.
    #[inline]
    pub const fn slot_zap_all(&self) -> bool {
        self.slot_zap_all
    }

    /// The same VM whose vCPUs each list the pages they make dirty in a ring of so many entries, instead of in a bitmap for each
    /// memslot (`KVM_CAP_DIRTY_LOG_RING`). A vCPU with a full ring runs again when user space has given its entries back.
    ///
    /// # Errors
    /// [`VmError::DirtyRing`] if it is no power of two from [`DIRTY_RING_MIN`] to [`DIRTY_RING`].
    pub fn with_dirty_ring(self, entries: u8) -> Result<Self, VmError> {
        if entries.is_power_of_two() && (DIRTY_RING_MIN..=DIRTY_RING).contains(&entries) {
            Ok(Self { dirty_ring: NonZeroU8::new(entries), ..self })
        } else {
            Err(VmError::DirtyRing(entries.into()))
        }
    }

    /// The same VM with a bitmap for each memslot.
    #[must_use]
    pub const fn without_dirty_ring(self) -> Self {
        Self { dirty_ring: None, ..self }
    }

    /// Entries of the dirty ring of each vCPU, if there are rings.
    #[inline]
    pub fn dirty_ring(&self) -> Option<u8> {
        self.dirty_ring.map(NonZeroU8::get)
    }

    /// The same VM whose guest knows what to do when a page that it needs has to be read in first, or does not
    /// (`MSR_KVM_ASYNC_PF_EN`). Only of such a VM does the host page out memory.
    #[must_use]
    pub const fn with_async_pf(self, async_pf: bool) -> Self {
        Self { async_pf, ..self }
    }

    /// Whether a vCPU may do something else while a page that it needs is read in.
    #[inline]
    pub const fn async_pf(&self) -> bool {
        self.async_pf
    }

    /// The same VM whose stolen bit means something else.
    ///
    /// # Errors
    /// [`VmError::Aliasing`] if the aliasing needs one stolen bit and the VM has another number of them.
    pub fn with_aliasing(self, aliasing: Aliasing) -> Result<Self, VmError> {
        Self { aliasing, ..self }.checked()
    }

    /// What the stolen bits mean.
    #[inline]
    pub const fn aliasing(&self) -> Aliasing {
        self.aliasing
    }

    /// Whether the stolen bit is the shared bit ([`Aliasing::SharedPrivate`]).
    #[inline]
    pub const fn shared_private(&self) -> bool {
        matches!(self.aliasing, Aliasing::SharedPrivate)
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

    /// Pages from one frame to the next, a power of two up to [`STRIDE`].
    #[inline]
    pub const fn stride(&self) -> u64 {
        1 << self.stride_shift
    }

    /// The largest leaf that fits in the window.
    pub fn largest_leaf(&self) -> Level {
        let fits = |level: &Level| level.pages() <= FRAMES as u64 * self.stride();
        Level::LARGE.into_iter().find(fits).unwrap_or_default()
    }

    /// How many frames `pages` pages are; a part of a frame's block counts as all of it.
    #[inline]
    pub const fn frames_in(&self, pages: u64) -> usize {
        ((pages + self.stride() - 1) >> self.stride_shift) as usize
    }

    /// The pages of `frames` frames.
    #[inline]
    pub const fn pages_of(&self, frames: usize) -> u64 {
        (frames as u64) << self.stride_shift
    }

    /// Host page number `index` of those that a program can name.
    #[inline]
    pub const fn hva(&self, index: usize) -> HostPage {
        HostPage::new((index as u64) << self.stride_shift)
    }

    /// The number of the host block that `hva` lies in: the inverse of [`VmConfig::hva`].
    #[inline]
    pub const fn hva_index(&self, hva: HostPage) -> usize {
        (hva.page() >> self.stride_shift) as usize
    }

    /// The TLB flush back-end at the start.
    #[inline]
    pub const fn backend(&self) -> BackendMode {
        self.backend
    }

    /// The number of the frame in whose block `gfn` lies, or `None` if it lies outside of the window.
    #[inline]
    pub fn frame(&self, gfn: Gfn) -> Option<usize> {
        gfn.offset_from(self.base).map(|offset| (offset >> self.stride_shift) as usize).filter(|&frame| frame < FRAMES)
    }

    /// The gfn of frame number `frame`.
    #[inline]
    pub const fn gfn(&self, frame: usize) -> Gfn {
        self.base.add((frame as u64) << self.stride_shift)
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
        self.frame(gfn).map_or(FrameSet::EMPTY, |frame| FrameSet::range(frame, self.frames_in(pages)))
    }

    /// The frames whose first page the leaf of `level` at `gfn` translates.
    pub fn frames_of_leaf(&self, gfn: Gfn, level: Level) -> FrameSet {
        let first = gfn.align_down(level.pages());
        // The first frame at or after the start of the leaf, and the first at or after its end.
        let frame = |gfn: Gfn| gfn.offset_from(self.base).map_or(0, |offset| self.frames_in(offset)).min(FRAMES);
        let (from, to) = (frame(first), frame(first.add(level.pages())));
        FrameSet::range(from, to - from)
    }
}
