//! The [`Mmu`] trait: the whole of what an implementation under test provides, and the answers it gives.

use crate::addr::{Alias, Gpa, Level, Pfn};
use crate::flush::FlushBackend;
use crate::host::Host;
use crate::limits::FRAMES;
use crate::op::{Access, Op};
use crate::vm::{FrameSet, VmConfig};
use std::fmt;
use std::num::NonZeroU64;

/// What a translation lets the guest do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Rights(u8);

impl Rights {
    /// Nothing.
    pub const NONE: Rights = Rights(0);
    /// Data reads.
    pub const R: Rights = Rights(1);
    /// Data writes.
    pub const W: Rights = Rights(2);
    /// Instruction fetches.
    pub const X: Rights = Rights(4);
    /// Reads and fetches.
    pub const RX: Rights = Rights(5);
    /// Everything.
    pub const RWX: Rights = Rights(7);

    /// The rights whose bits (R 1, W 2, X 4) are set.
    #[inline]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 7)
    }

    /// R 1, W 2, X 4.
    #[inline]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The right that `access` needs.
    #[inline]
    pub const fn needed(access: Access) -> Self {
        match access {
            Access::Read => Self::R,
            Access::Write => Self::W,
            Access::Execute => Self::X,
        }
    }

    /// Whether all of `other` is in `self`.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Rights in both.
    #[inline]
    pub const fn intersect(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Rights in either.
    #[inline]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Rights of `self` that are not in `other`.
    #[inline]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is none.
    #[inline]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (right, letter) in [(Self::R, 'r'), (Self::W, 'w'), (Self::X, 'x')] {
            write!(f, "{}", if self.contains(right) { letter } else { '-' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A present translation as a walk of the target's tables finds it: the page of the address that was asked for, the rights
/// to it, and the level of the leaf.
///
/// Packed into one word (rights in bits 0 to 2, level in 3 and 4, the page where page tables hold it) so that two
/// compare quickly.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spte(NonZeroU64);

impl Spte {
    /// A translation to `pfn` with `rights`, or `None` if it grants nothing and so is not present.
    #[inline]
    pub const fn new(pfn: Pfn, rights: Rights) -> Option<Self> {
        if rights.is_none() { None } else { Self::from_raw(pfn.in_entry() | rights.0 as u64) }
    }

    /// The same as part of a leaf of `level`.
    #[must_use]
    #[inline]
    pub const fn at_level(self, level: Level) -> Self {
        // Rights are not zero, so neither is the whole.
        match Self::from_raw(self.raw() & !(LEVEL_MASK << LEVEL_SHIFT) | (level as u64) << LEVEL_SHIFT) {
            Some(spte) => spte,
            None => self,
        }
    }

    /// The packed form; `None` for 0, which is how an absent translation is packed.
    #[inline]
    pub const fn from_raw(raw: u64) -> Option<Self> {
        match NonZeroU64::new(raw) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }

    /// The packed form.
    #[inline]
    pub const fn raw(self) -> u64 {
        self.0.get()
    }

    /// The page.
    #[inline]
    pub const fn pfn(self) -> Pfn {
        Pfn::of_entry(self.0.get())
    }

    /// What the guest may do with it.
    #[inline]
    pub const fn rights(self) -> Rights {
        Rights((self.0.get() & 7) as u8)
    }

    /// How much the leaf translates.
    #[inline]
    pub const fn level(self) -> Level {
        match self.0.get() >> LEVEL_SHIFT & LEVEL_MASK {
            0 => Level::Page4K,
            1 => Level::Page2M,
            _ => Level::Page1G,
        }
    }
}

const LEVEL_SHIFT: u32 = 3;
const LEVEL_MASK: u64 = 3;

impl fmt::Display for Spte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pfn(), self.rights())?;
        if self.level() == Level::Page4K { Ok(()) } else { write!(f, " {}", self.level().name()) }
    }
}

impl fmt::Debug for Spte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why the guest gets a page fault, as the error code tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Fault {
    /// An entry is not present, or there is no memory where a table should be.
    NotPresent,
    /// The access needs a right that an entry on the way does not give.
    Protection,
    /// A reserved bit is set in a present entry. In EPT this is a misconfiguration.
    Reserved,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 3] = [Fault::NotPresent, Fault::Protection, Fault::Reserved];

    /// The word for it in the text format.
    pub const fn name(self) -> &'static str {
        match self {
            Fault::NotPresent => "not-present",
            Fault::Protection => "protection",
            Fault::Reserved => "reserved",
        }
    }
}

/// How an op ended, as far as the guest or user space can tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Exit {
    /// The op was carried out and has no result.
    Done,
    /// The access reached this page.
    Memory(Pfn),
    /// The write was carried out by emulation on this page, and whoever tracks the frame was told.
    Emulated(Pfn),
    /// The access went to user space, which was told this address.
    Mmio(Gpa),
    /// Nothing happened; the guest will fault again.
    Retry,
    /// The fault waits to be ended.
    Pending,
    /// The dirty log of the slot.
    Dirty(FrameSet),
    /// Whether any of the pages was accessed since it was aged last.
    Young(bool),
    /// Where the guest's own tables lead, as the software walk tells it.
    Translated(Gpa),
    /// The guest gets a page fault, because of its own tables.
    GuestFault(Fault),
    /// The access failed in a way that user space sees as an error.
    Error,
    /// The access was refused as one to shared memory where its frame is private, or the other way round (`KVM_EXIT_MEMORY_FAULT`).
    MemoryFault,
    /// There is no memory where some was asked for (`ENOENT`).
    NotFound,
    /// The request was refused: it makes no sense (`EINVAL`).
    Refused,
    /// The vCPU does not run, or take a page, before user space has given back entries of its dirty ring.
    RingFull,
    /// The guest was told that the page is not there yet, and goes on with something else (`KVM_PV_REASON_PAGE_NOT_PRESENT`).
    PageNotPresent,
    /// The vCPU waits for a page that the guest was told is not there yet (`KVM_REQ_APF_HALT`).
    Halted,
    /// The guest was told that the page is there which it once faulted on by this address.
    PageReady(Gpa),
    /// The target cannot show the result of this op.
    Unsupported,
}

impl Exit {
    /// The name without its data.
    #[inline]
    pub const fn name(&self) -> &'static str {
        match self {
            Exit::Done => "done",
            Exit::Memory(_) => "memory",
            Exit::Emulated(_) => "emulated",
            Exit::Mmio(_) => "mmio",
            Exit::Retry => "retry",
            Exit::Pending => "pending",
            Exit::Dirty(_) => "dirty",
            Exit::Young(_) => "young",
            Exit::Translated(_) => "translated",
            Exit::GuestFault(_) => "guest-fault",
            Exit::Error => "error",
            Exit::MemoryFault => "misattributed",
            Exit::NotFound => "not-found",
            Exit::Refused => "refused",
            Exit::RingFull => "ring-full",
            Exit::PageNotPresent => "page-not-present",
            Exit::Halted => "halted",
            Exit::PageReady(_) => "page-ready",
            Exit::Unsupported => "unsupported",
        }
    }
}

/// Something a target keeps by gfn. Frame numbers are given as the target holds them, right or wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GfnIndexed {
    /// The reverse map lists a leaf.
    Rmap {
        /// The key it is listed under: the first frame that it translates.
        gfn: u64,
        /// The first address that it translates.
        gpa: Gpa,
        /// How much it translates.
        level: Level,
        /// Whether it is there but grants nothing: where the processor sets no accessed bit, ageing takes the rights away
        /// until the next fault gives them back.
        idle: bool,
    },
    /// A shadow page.
    ShadowPage {
        /// The frame it begins with.
        gfn: u64,
        /// The alias it is for.
        alias: Alias,
        /// Its level, 1 for a table of leaves.
        level: u8,
        /// Whether it translates frames that follow one another, and is not made of a table of the guest.
        direct: bool,
        /// What the guest's tables above allow.
        access: Rights,
        /// Whether it is for a guest of the guest.
        guest_mode: bool,
    },
    /// The reverse map lists a leaf that no GPA leads to: one of a shadow of the guest's tables, or one whose table is not linked
    /// right now.
    ShadowRmap {
        /// The key it is listed under.
        gfn: u64,
        /// A number for the leaf.
        spte: u64,
    },
    /// There is such a leaf.
    ShadowLeaf {
        /// The frame it is for.
        gfn: u64,
        /// A number for the leaf.
        spte: u64,
    },
    /// A shadow page on the list of those that recovery takes away (`possible_nx_huge_pages`).
    NxSplit {
        /// The frame it begins with.
        gfn: u64,
        /// The alias it is for.
        alias: Alias,
        /// Its level.
        level: u8,
    },
    /// A table page that is in use, where each hangs from a root.
    Table {
        /// The frame it begins with.
        gfn: u64,
        /// The alias it is for.
        alias: Alias,
        /// Its level.
        level: u8,
        /// Whether a root leads to it: one that vCPUs load, or one that waits to be taken apart.
        reached: bool,
    },
    /// A leaf that hangs from a root which waits to be taken apart. No vCPU comes by it, but the host still has to be told of what
    /// becomes of its page.
    Retired {
        /// The first frame that it translates.
        gfn: u64,
        /// The page of it.
        pfn: Pfn,
        /// How much it translates.
        level: Level,
    },
    /// The absolute frame of a bit in a dirty log.
    DirtyLog(u64),
    /// The frame that an MMIO entry remembers.
    Mmio(u64),
    /// A frame that a vCPU waits for while it is read in.
    AsyncPf(u64),
}

impl GfnIndexed {
    /// A shadow page of the direct kind, on whose way the guest forbids nothing: where its tables are not shadowed, all are.
    pub const fn direct_page(gfn: u64, alias: Alias, level: u8) -> Self {
        Self::ShadowPage { gfn, alias, level, direct: true, access: Rights::RWX, guest_mode: false }
    }

    /// The frame number used as key.
    pub const fn raw(self) -> u64 {
        match self {
            GfnIndexed::Rmap { gfn: raw, .. } | GfnIndexed::ShadowPage { gfn: raw, .. } => raw,
            GfnIndexed::NxSplit { gfn: raw, .. }
            | GfnIndexed::Table { gfn: raw, .. }
            | GfnIndexed::Retired { gfn: raw, .. } => raw,
            GfnIndexed::ShadowRmap { gfn: raw, .. } | GfnIndexed::ShadowLeaf { gfn: raw, .. } => raw,
            GfnIndexed::DirtyLog(raw) | GfnIndexed::Mmio(raw) | GfnIndexed::AsyncPf(raw) => raw,
        }
    }

    /// The name of the table.
    pub const fn table(self) -> &'static str {
        match self {
            GfnIndexed::Rmap { .. } | GfnIndexed::ShadowRmap { .. } => "rmap",
            GfnIndexed::ShadowLeaf { .. } => "leaf of a shadow page",
            GfnIndexed::ShadowPage { .. } => "shadow page",
            GfnIndexed::NxSplit { .. } => "list of pages to recover",
            GfnIndexed::Table { .. } => "table page",
            GfnIndexed::Retired { .. } => "leaf of a retired root",
            GfnIndexed::DirtyLog(_) => "dirty log",
            GfnIndexed::Mmio(_) => "MMIO entry",
            GfnIndexed::AsyncPf(_) => "list of pages that a vCPU waits for",
        }
    }
}

/// What of itself a target can show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// [`Mmu::walk`] finds what is mapped.
    pub tables: bool,
    /// Flushes go through the [`FlushBackend`].
    pub flushes: bool,
    /// [`Mmu::inspect`] reports keys.
    pub keys: bool,
    /// An rmap is among them.
    pub rmap: bool,
    /// So are roots that come and go, with all that hangs from them.
    pub roots: bool,
    /// It shadows the guest's tables, and [`Mmu::warning`] tells of what it warned of.
    pub shadows: bool,
    /// It holds each page from its look-up until it is mapped, by [`Host::pins`].
    pub pins: bool,
    /// Guest accesses really go through the MMU under test. Where that was not proven, right answers count for nothing.
    pub native: bool,
}

impl Capabilities {
    /// How ops end, and nothing else.
    pub const EXITS: Capabilities = Capabilities {
        tables: false,
        flushes: false,
        keys: false,
        rmap: false,
        roots: false,
        shadows: false,
        pins: false,
        native: true,
    };
}

/// A second-stage MMU under test. Three methods are enough; the others let a target show more, or run faster.
///
/// `step` sees only ops that the reference model accepts and [`Mmu::supports`] allows, after the [`Host`] has changed.
pub trait Mmu {
    /// Be `vm` from now on, with no memslot and nothing mapped, whatever was before; even a panic in the middle of an op.
    fn reset(&mut self, vm: &VmConfig);

    /// Carry out one op. Flushes are asked of `flush`.
    fn step(&mut self, host: &Host, flush: &mut FlushBackend, op: &Op) -> Exit;

    /// What the tables say about `gpa`: no fault, no TLB, no side effect.
    fn walk(&self, gpa: Gpa) -> Option<Spte>;

    /// What [`Mmu::walk`] finds for the frames of the window, which begins at `gpa` and has one in every `stride` pages: each frame
    /// that is mapped, once.
    fn walk_window(&self, gpa: Gpa, stride: u64, visit: &mut dyn FnMut(usize, Spte)) {
        for frame in 0..FRAMES {
            if let Some(spte) = self.walk(gpa.add_pages(frame as u64 * stride)) {
                visit(frame, spte);
            }
        }
    }

    /// Report everything kept by gfn.
    fn inspect(&self, _visit: &mut dyn FnMut(GfnIndexed)) {}

    /// What the last op made the implementation warn of, as the kernel does in its log. A guest must not be able to.
    fn warning(&self) -> Option<&'static str> {
        None
    }

    /// Whether the target can carry out `op` at all. An op it cannot is skipped, for the model too, and counted.
    fn supports(&self, _op: &Op) -> bool {
        true
    }

    /// Whether it can be such a VM at all. In one that it cannot, every op is skipped.
    fn supports_vm(&self, _vm: &VmConfig) -> bool {
        true
    }

    /// What oracles can see here.
    fn capabilities(&self) -> Capabilities {
        Capabilities { tables: true, flushes: true, ..Capabilities::EXITS }
    }
}

/// Any MMU, where which one is not known before the program runs.
impl Mmu for Box<dyn Mmu> {
    fn reset(&mut self, vm: &VmConfig) {
        (**self).reset(vm);
    }

    fn step(&mut self, host: &Host, flush: &mut FlushBackend, op: &Op) -> Exit {
        (**self).step(host, flush, op)
    }

    fn walk(&self, gpa: Gpa) -> Option<Spte> {
        (**self).walk(gpa)
    }

    fn walk_window(&self, gpa: Gpa, stride: u64, visit: &mut dyn FnMut(usize, Spte)) {
        (**self).walk_window(gpa, stride, visit);
    }

    fn inspect(&self, visit: &mut dyn FnMut(GfnIndexed)) {
        (**self).inspect(visit);
    }

    fn warning(&self) -> Option<&'static str> {
        (**self).warning()
    }

    fn supports(&self, op: &Op) -> bool {
        (**self).supports(op)
    }

    fn supports_vm(&self, vm: &VmConfig) -> bool {
        (**self).supports_vm(vm)
    }

    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }
}
