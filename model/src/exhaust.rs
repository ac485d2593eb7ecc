//! Every program of a small scope, one by one: what a campaign leaves to chance, up to a bound.
//!
//! A [`Scope`] is a VM with few of everything: frames, memslots, aliases, vCPUs. Its [`alphabet`](Scope::alphabet) is every op
//! with every operand. [`Scope::explore`] goes through the programs, shorter ones first, so that what breaks a law is found in
//! the fewest ops. An op that the model does not accept is left out, with all that would follow: it would be skipped.
//!
//! **Folding.** Things that differ in name only are named in the order of their first use, and a program stands for all those
//! that rename it. What is renamed, and why the law cannot tell:
//!
//! | what | why |
//! |---|---|
//! | vCPUs | each is a fault in progress or none, and a TLB that may hold all that was ever visible |
//! | user slots, private slots | ids are compared with each other and with the first private one, never with a number |
//! | host blocks | host pages are compared; a block keeps its pages in their order |
//! | notifier windows | each is a range or none |
//! | stolen bits | an alias is a set of them; so the alias of two bits stays one of two bits |
//!
//! Frames are **not** folded. Where a page lies in its slot is what flushed ranges, cleared ranges and prefetch are about: a
//! range that begins one page late is seen at the first page and nowhere else. Aliases are folded by their bits, not by
//! their numbers, because an MMU may treat "all bits" apart.
//!
//! A renaming is an automorphism of the model, which the tests of this crate check. Whether it is one of the target is for
//! its tests: that each mutant which dies unfolded dies folded, too. An MMU that treats vCPU 1 unlike vCPU 0 needs
//! [`Scope::unfolded`].

mod states;

use crate::addr::{Gfn, Gpa, HostPage, Level, StolenMask};
use crate::flush::BackendMode;
use crate::guest_paging::{Gpte, GpteFlags, Gva};
use crate::host::Host;
use crate::limits::{
    DIRTY_RING, DIRTY_RING_MIN, FRAMES, HOST_PAGES, MMU_PAGES_MIN, NOTIFIER_WINDOWS, OPS, SCOPE_FRAMES, SCOPE_OPS,
    SCOPE_SLOTS, STRIDE, VCPUS,
};
use crate::memory_attributes::MemoryType;
use crate::mmu::Exit;
use crate::model::Model;
use crate::op::{Access, HostPageRange, Op, OpKind, SlotChange, SlotFlags, SlotId};
use crate::op_kinds::OpKinds;
use crate::program::Program;
use crate::vm::{Logging, VmConfig};
use states::States;
use std::fmt;
use std::ops::ControlFlow;

/// A VM with few of everything, and what may be done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    vm: VmConfig,
    frames: usize,
    slots: usize,
    kinds: OpKinds,
    folded: bool,
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

/// What a visitor makes of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Its last op ended so. Programs that begin with it come next.
    Ended(Exit),
    /// None that begins with it is wanted.
    Cut,
    /// No further program is wanted.
    Stop,
}

/// Where a visit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Whether the program is visited for the first time. On the way to longer ones it comes again, so that its last op can
    /// be asked for.
    pub first: bool,
    /// How many programs it stands for, itself included.
    pub symmetric: u64,
    /// How much of the programs of its length has been visited, in thousandths.
    pub permille: u32,
}

/// What an exploration came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explored {
    /// Whether every program was visited.
    pub all: bool,
    /// From how many different states of the model programs went on, with every op that it accepts there. Those that the last op
    /// of the longest programs leads to are not among them.
    pub states: u64,
}

/// What can be renamed.
#[derive(Clone, Copy)]
enum Class {
    Vcpu,
    UserSlot,
    InternalSlot,
    HostBlock,
    Window,
    StolenBit,
}

const CLASSES: usize = 6;
/// The most names in one op, such as the vCPU and the aliases of both addresses of a walk.
const NAMES: usize = 3;

/// How many names of each class a program has used.
type Used = [u8; CLASSES];

#[derive(Clone, Copy)]
struct Letter {
    op: Op,
    names: [Option<(Class, u8)>; NAMES],
}

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

    /// Every op, in the order in which they are tried.
    pub fn alphabet(&self) -> Vec<Op> {
        let mut ops = Vec::new();
        self.slot_ops(&mut ops);
        self.access_ops(&mut ops);
        self.host_ops(&mut ops);
        self.log_ops(&mut ops);
        self.division_ops(&mut ops);
        self.zap_ops(&mut ops);
        ops.push(Op::MmuPages { pages: MMU_PAGES_MIN });
        ops.extend(BackendMode::ALL.map(Op::Backend));
        self.walk_ops(&mut ops);
        self.paging_ops(&mut ops);
        ops.retain(|op| self.has(op.kind()));
        ops
    }

    const fn has(&self, kind: OpKind) -> bool {
        self.kinds.contains(kind)
    }

    fn ids(&self) -> impl Iterator<Item = SlotId> {
        let private = usize::from(self.slots > 1);
        let users = (0..self.slots - private).map(|n| SlotId::user(n as u8));
        users.chain((0..private).map(|n| SlotId::internal(n as u8)))
    }

    /// Every run of frames: the first, and how many.
    fn runs(&self) -> impl Iterator<Item = (Gfn, u32)> {
        let (vm, frames) = (self.vm, self.frames);
        (0..frames)
            .flat_map(move |first| (1..=frames - first).map(move |pages| (vm.gfn(first), vm.pages_of(pages) as u32)))
    }

    fn gpas(&self) -> impl Iterator<Item = Gpa> {
        let (vm, aliases) = (self.vm, self.vm.stolen().alias_count());
        (0..self.frames).flat_map(move |frame| (0..aliases).map(move |alias| vm.gpa(frame, alias)))
    }

    fn slot_ops(&self, ops: &mut Vec<Op>) {
        let flags = |readonly, log_dirty| SlotFlags { readonly, log_dirty };
        let all_flags = [flags(false, false), flags(false, true), flags(true, false)];
        for id in self.ids() {
            let of_id = if id.is_internal() { &all_flags[..1] } else { &all_flags[..] };
            let mut changes = Vec::new();
            for (gfn, pages) in self.runs() {
                for block in 0..self.slots {
                    let hva = self.hva(block, 0);
                    changes.extend(of_id.iter().map(|&flags| SlotChange::Create { gfn, pages, hva, flags }));
                }
            }
            changes.push(SlotChange::Delete);
            if !id.is_internal() {
                changes.extend((0..self.frames).map(|frame| SlotChange::Move { gfn: self.vm.gfn(frame) }));
                changes.extend(of_id.iter().map(|&flags| SlotChange::Flags(flags)));
            }
            ops.extend(changes.iter().map(|&change| Op::Slot { id, change }));
            self.aliased_slots(id, ops);
            if self.has(OpKind::SlotEnd) {
                ops.extend(changes.iter().map(|&change| Op::SlotBegin { id, change }));
            }
        }
        ops.push(Op::SlotEnd);
    }

    fn aliased_slots(&self, id: SlotId, ops: &mut Vec<Op>) {
        let aliases = self.vm.stolen().aliases().filter(|alias| !alias.is_none());
        for alias in aliases.filter(|_| !id.is_internal()) {
            for (gfn, pages) in self.runs() {
                let gpa = self.vm.stolen().join(gfn, alias);
                let blocks = (0..self.slots).map(|block| self.hva(block, 0));
                ops.extend(blocks.map(|hva| Op::SlotAliased { id, gpa, pages, hva }));
            }
        }
    }

    fn access_ops(&self, ops: &mut Vec<Op>) {
        for vcpu in 0..self.vm.vcpus() {
            for gpa in self.gpas() {
                let kinds = Access::ALL.into_iter().filter(|&access| self.has(Op::Access { vcpu, gpa, access }.kind()));
                for access in kinds {
                    ops.push(Op::Access { vcpu, gpa, access });
                    ops.push(Op::FaultBegin { vcpu, gpa, access });
                }
            }
            ops.extend(self.gpas().map(|gpa| Op::Prefault { vcpu, gpa }));
            ops.push(Op::FaultEnd { vcpu });
        }
    }

    fn hva(&self, block: usize, page: usize) -> HostPage {
        self.vm.hva(block * self.frames + page)
    }

    /// Each page of each block, and each whole block.
    fn host_ops(&self, ops: &mut Vec<Op>) {
        for block in 0..self.slots {
            let pages = (0..self.frames)
                .map(|page| HostPageRange { start: self.hva(block, page), pages: self.vm.stride() as u32 });
            let whole = HostPageRange { start: self.hva(block, 0), pages: self.vm.pages_of(self.frames) as u32 };
            for range in pages.chain((self.frames > 1).then_some(whole)) {
                ops.extend([Op::Unmap { range, by: None }, Op::ProtNone { range }, Op::Age { range }]);
                ops.extend(range.holds_huge().then_some(Op::Collapse { range }));
                ops.extend((0..NOTIFIER_WINDOWS as u8).map(|window| Op::UnmapBegin { window, range }));
            }
        }
        ops.extend((0..NOTIFIER_WINDOWS as u8).map(|window| Op::UnmapEnd { window }));
    }

    fn log_ops(&self, ops: &mut Vec<Op>) {
        for id in self.ids().filter(|id| !id.is_internal()) {
            ops.push(Op::DirtyGet { id });
            ops.extend(self.runs().map(|(gfn, pages)| Op::DirtyClear { id, gfn, pages }));
        }
        for gfn in (0..self.frames).map(|frame| self.vm.gfn(frame)) {
            ops.extend([Op::WriteProtect { gfn }, Op::WriteTrack { gfn }, Op::WriteUntrack { gfn }]);
        }
    }

    /// What divides frames, where there are leaves to divide.
    fn division_ops(&self, ops: &mut Vec<Op>) {
        if self.vm.largest_leaf() == Level::Page4K {
            return;
        }
        for (gfn, pages) in self.runs() {
            ops.extend([false, true].map(|private| Op::Attributes { gfn, pages, private }));
            if self.has(OpKind::AttributesEnd) {
                ops.extend([false, true].map(|private| Op::AttributesBegin { gfn, pages, private }));
            }
            ops.extend(MemoryType::ALL.map(|memory| Op::MemoryType { gfn, pages, memory }));
        }
        ops.extend([Op::AttributesEnd, Op::NxRecover]);
    }

    /// Zaps that let others have their turn after the first leaf.
    fn zap_ops(&self, ops: &mut Vec<Op>) {
        ops.extend(self.runs().map(|(gfn, pages)| Op::ZapBegin { gfn, pages, leaves: 1 }));
        ops.push(Op::ZapEnd);
    }

    /// Each table, with a leaf of each alias: which frame the leaf names makes no difference to anything. Then each frame as a
    /// table whose first entry leads to itself, under each alias: one such entry is a tree that can be walked to its end.
    fn walk_ops(&self, ops: &mut Vec<Op>) {
        for vcpu in 0..self.vm.vcpus() {
            for table in self.gpas() {
                let leaves = (0..self.vm.stolen().alias_count()).map(|alias| self.vm.gpa(0, alias));
                ops.extend(leaves.map(|leaf| Op::Translate { vcpu, table, leaf }));
            }
            for gpa in self.gpas() {
                let (gfn, _) = self.vm.stolen().split(gpa);
                let itself = self.vm.stolen().aliases().map(|alias| self.vm.stolen().join(gfn, alias));
                let entries = itself.map(|to| Gpte::new(to, GpteFlags::PLAIN));
                ops.extend(entries.map(|gpte| Op::WriteGpte { vcpu, gpa, index: 0, gpte }));
                ops.push(Op::GuestWalk { vcpu, root: gpa, gva: Gva::default(), access: Access::Read });
                let kinds = [Access::Read, Access::Write];
                ops.extend(kinds.map(|access| Op::GuestAccess { vcpu, root: gpa, gva: Gva::default(), access }));
            }
            ops.push(Op::GuestFlush { vcpu });
        }
    }

    /// Each block, or vCPU, where the host pages out memory at all.
    fn paging_ops(&self, ops: &mut Vec<Op>) {
        if self.vm.async_pf() {
            let blocks = (0..self.slots).map(|block| self.hva(block, 0));
            let ranges = blocks.map(|start| HostPageRange { start, pages: self.vm.pages_of(self.frames) as u32 });
            ops.extend(ranges.flat_map(|range| [Op::PageOut { range }, Op::PageIn { range }]));
            ops.extend((0..self.vm.vcpus()).flat_map(|vcpu| [Op::PageReady { vcpu }, Op::AsyncPfClear { vcpu }]));
        }
    }

    /// How many names each class has, in the order of [`Class`].
    fn names(&self) -> Used {
        let (private, slots) = (u8::from(self.slots > 1), self.slots as u8);
        let bits = self.vm.stolen().bits().len() as u8;
        [self.vm.vcpus(), slots - private, private, slots, NOTIFIER_WINDOWS as u8, bits]
    }

    fn letter(&self, op: Op) -> Letter {
        let vcpu = |vcpu| Some((Class::Vcpu, vcpu));
        let slot = |id: SlotId| match id.is_internal() {
            true => Some((Class::InternalSlot, (id.index() - SlotId::internal(0).index()) as u8)),
            false => Some((Class::UserSlot, id.index() as u8)),
        };
        let block = |hva: HostPage| Some((Class::HostBlock, (self.vm.hva_index(hva) / self.frames) as u8));
        let bit = |gpa| {
            let (_, alias) = self.vm.stolen().split(gpa);
            // An alias of several bits tells none of them apart from the others.
            let number = self.vm.stolen().alias_index(alias);
            number.is_power_of_two().then_some((Class::StolenBit, number.trailing_zeros() as u8))
        };
        let names = match op {
            Op::Slot { id, change } | Op::SlotBegin { id, change } => match change {
                SlotChange::Create { hva, .. } => [slot(id), block(hva), None],
                _ => [slot(id), None, None],
            },
            Op::SlotAliased { id, gpa, hva, .. } => [slot(id), bit(gpa), block(hva)],
            Op::Access { vcpu: v, gpa, .. } | Op::FaultBegin { vcpu: v, gpa, .. } | Op::Prefault { vcpu: v, gpa } => {
                [vcpu(v), bit(gpa), None]
            }
            Op::FaultEnd { vcpu: v }
            | Op::GuestFlush { vcpu: v }
            | Op::PageReady { vcpu: v }
            | Op::AsyncPfClear { vcpu: v } => [vcpu(v), None, None],
            Op::Unmap { range, .. }
            | Op::Collapse { range }
            | Op::PageOut { range }
            | Op::PageIn { range }
            | Op::ProtNone { range }
            | Op::Age { range } => [block(range.start), None, None],
            Op::UnmapBegin { window, range } => [Some((Class::Window, window)), block(range.start), None],
            Op::UnmapEnd { window } => [Some((Class::Window, window)), None, None],
            Op::DirtyGet { id } | Op::DirtyClear { id, .. } => [slot(id), None, None],
            Op::Translate { vcpu: v, table, leaf } => [vcpu(v), bit(table), bit(leaf)],
            Op::WriteGpte { vcpu: v, gpa, gpte, .. } => [vcpu(v), bit(gpa), bit(gpte.gpa())],
            Op::GuestWalk { vcpu: v, root, .. } | Op::GuestAccess { vcpu: v, root, .. } => [vcpu(v), bit(root), None],
            Op::SlotEnd | Op::WriteProtect { .. } | Op::WriteTrack { .. } | Op::WriteUntrack { .. } => [None; NAMES],
            Op::Attributes { .. } | Op::AttributesBegin { .. } | Op::AttributesEnd => [None; NAMES],
            Op::ZapBegin { .. } | Op::ZapEnd => [None; NAMES],
            Op::MemoryType { .. } | Op::NxRecover | Op::MmuPages { .. } | Op::Backend(_) => [None; NAMES],
        };
        Letter { op, names }
    }

    /// Visit every program of 1 to `ops` ops, at most [`SCOPE_OPS`], in an order that is always the same: by length, and
    /// within a length by the alphabet.
    pub fn explore(&self, ops: usize, visit: &mut dyn FnMut(&Program, Visit) -> Answer) -> Explored {
        let alphabet: Vec<Letter> = self.alphabet().into_iter().map(|op| self.letter(op)).collect();
        let program = Program { vm: self.vm, ops: Vec::new(), comment: Vec::new() };
        let states = States::default();
        let mut walk =
            Walk { scope: self, names: self.names(), alphabet, program, length: 0, permille: 0, states, visit };
        let start = State {
            model: Model::new(&self.vm),
            host: Host::new(&self.vm),
            used: [0; CLASSES],
            symmetric: 1,
            share: 1e3,
        };
        let all = (1..=ops.min(SCOPE_OPS)).all(|length| {
            (walk.length, walk.permille) = (length, 0);
            walk.below(&start, 0.0).is_continue()
        });
        Explored { all, states: walk.states.len() }
    }
}

/// The first gfn of a leaf table: with three frames or more, that of the last one.
const TABLE_EDGE: Gfn = Gfn::new(0x200);

/// What a program leads to.
#[derive(Clone)]
struct State {
    model: Model,
    host: Host,
    used: Used,
    symmetric: u64,
    /// Thousandths of the walk that lie below.
    share: f64,
}

struct Walk<'a> {
    scope: &'a Scope,
    names: Used,
    alphabet: Vec<Letter>,
    program: Program,
    length: usize,
    permille: u32,
    states: States,
    visit: &'a mut dyn FnMut(&Program, Visit) -> Answer,
}

impl Walk<'_> {
    /// Visit what begins with the program that led to `state`, `done` thousandths into the walk.
    fn below(&mut self, state: &State, mut done: f64) -> ControlFlow<()> {
        let last = self.program.ops.len() + 1 == self.length;
        if last {
            self.states.note(&state.model, &state.host);
        }
        let share = state.share / self.alphabet.len() as f64;
        for at in 0..self.alphabet.len() {
            let Letter { op, names } = self.alphabet[at];
            done += share;
            let Some((used, ways)) = self.fold(state.used, names) else { continue };
            if !state.model.accepts(&state.host, &op) {
                continue;
            }
            let symmetric = state.symmetric * ways;
            self.permille = done as u32;
            self.program.ops.push(op);
            let visit = Visit { first: last, symmetric, permille: self.permille };
            match (self.visit)(&self.program, visit) {
                Answer::Ended(exit) if !last => {
                    let mut next = State { used, symmetric, share, ..state.clone() };
                    next.host.apply(&op);
                    next.host.settle(&op, &exit);
                    next.model.step(&next.host, &op, &exit);
                    self.below(&next, done - share)?;
                }
                Answer::Ended(_) | Answer::Cut => {}
                Answer::Stop => return ControlFlow::Break(()),
            }
            self.program.ops.pop();
        }
        ControlFlow::Continue(())
    }

    /// The names used after an op that uses `names`, and how many ways there are to choose those that are new; `None` if one
    /// is used before its turn.
    fn fold(&self, mut used: Used, names: [Option<(Class, u8)>; NAMES]) -> Option<(Used, u64)> {
        let mut ways = 1;
        if self.scope.folded {
            for (class, name) in names.into_iter().flatten() {
                let used = &mut used[class as usize];
                if name > *used {
                    return None;
                }
                if name == *used {
                    ways *= u64::from(self.names[class as usize] - *used);
                    *used += 1;
                }
            }
        }
        Some((used, ways))
    }
}

const _: () = assert!(SCOPE_FRAMES * SCOPE_SLOTS <= HOST_PAGES && SCOPE_FRAMES <= FRAMES && SCOPE_OPS <= OPS);
