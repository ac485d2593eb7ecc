//! Making programs: near the edges where aliasing bugs live, with some kinds of op left out of each program.

mod dirty;
mod expected_state;
mod guest_tables;
mod mutate;
mod pages;
mod slots;
mod vms;

pub use mutate::readdress;

use expected_state::ExpectedState;
use slots::slot_size;

use crate::addr::{Gfn, Gpa, Level, StolenMask};
use crate::choices::{Choices, FromBytes};
use crate::flush::BackendMode;
use crate::limits::{FRAMES, HOST_PAGES, MMU_PAGES_MIN, NOTIFIER_WINDOWS, STOLEN_BITS, STRIDE};
use crate::memory_attributes::MemoryType;
use crate::op::{Access, HostPageRange, Op, OpKind, SlotId};
use crate::op_kinds::OpKinds;
use crate::program::Program;
use crate::reclaim::{Reclaim, ReclaimSet};
use crate::vm::VmConfig;
use arbitrary::{Arbitrary, Unstructured};

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

    const fn splits_faults(&self) -> bool {
        self.windows || self.held_faults || self.split_faults
    }

    const fn allows(&self, kind: OpKind) -> bool {
        self.kinds.contains(kind)
    }
}

/// How often each kind is drawn, before some are left out.
const WEIGHTS: [(OpKind, u32); 39] = [
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
const PAGING: [OpKind; 4] = [OpKind::PageOut, OpKind::PageIn, OpKind::PageReady, OpKind::AsyncPfClear];
/// The weight of [`OpKind::Translate`], which needs nothing of the rest.
const TRANSLATE_WEIGHT: u32 = 2;

/// Makes programs for one profile.
#[derive(Clone, Debug)]
pub struct Generator {
    profile: Profile,
}

/// What one program concentrates on: few frames, so that ops meet, and some kinds of op absent.
struct Focus {
    hot: [u8; 3],
    kinds: OpKinds,
}

impl Focus {
    const fn has(&self, kind: OpKind) -> bool {
        self.kinds.contains(kind)
    }
}

impl Generator {
    /// A generator for `profile`.
    pub fn new(profile: Profile) -> Self {
        Self { profile }
    }

    /// A new program, written over `program`, whose allocation is kept.
    pub fn program(&self, choices: &mut impl Choices, program: &mut Program) {
        program.comment.clear();
        program.ops.clear();
        program.vm = self.vm(choices);
        let vm = program.vm;
        let mut sketch = ExpectedState::default();
        self.layout(choices, &vm, &mut sketch, &mut program.ops);
        let focus = self.focus(choices, &vm, &sketch);
        let walks = focus.has(OpKind::GuestWalk) || focus.has(OpKind::GuestAccess);
        if focus.has(OpKind::WriteGpte) && walks && choices.chance(1, 2) {
            let access = self.tree(choices, &vm, &mut sketch, &focus, &mut program.ops);
            if focus.has(OpKind::GuestAccess) && vm.stride() == 1 && choices.chance(1, 2) {
                program.ops.push(access);
                self.remap(choices, &vm, &mut sketch, &focus, access, &mut program.ops);
            }
        }
        let wanted = program.ops.len() as u32 + 2 + choices.below(self.profile.ops_max.saturating_sub(4).max(1));
        while (program.ops.len() as u32) < wanted.min(self.profile.ops_max) {
            self.extend(choices, &vm, &mut sketch, &focus, &mut program.ops);
        }
        program.ops.truncate(self.profile.ops_max as usize);
        if self.profile.allows(OpKind::DirtyGet)
            && let Some((id, _)) = sketch.any_slot(choices, |_, slot| slot.flags.log_dirty)
        {
            program.ops.push(Op::DirtyGet { id });
        }
    }

    /// One op more, and at times what makes it tell: what it races with, or what it leads to.
    fn extend(
        &self,
        choices: &mut impl Choices,
        vm: &VmConfig,
        sketch: &mut ExpectedState,
        focus: &Focus,
        ops: &mut Vec<Op>,
    ) {
        let op = self.op(choices, vm, sketch, focus);
        sketch.note(vm, &op);
        ops.push(op);
        if let Op::FaultBegin { vcpu, .. } = op
            && self.profile.held_faults
        {
            let unmaps = choices.below(3);
            ops.extend((0..unmaps).map(|_| self.unmap(choices, vm, sketch, focus)));
            sketch.note(vm, &Op::FaultEnd { vcpu });
            ops.push(Op::FaultEnd { vcpu });
        } else if let Op::FaultBegin { vcpu, .. } = op
            && self.profile.allows(OpKind::UnmapBegin)
            && choices.chance(1, 4)
        {
            // Something that the fault races with, and the rest of it before that is over.
            let window = u8::from(sketch.windows[0]);
            let range = self.hva(choices, vm, sketch, focus);
            for op in [Op::UnmapBegin { window, range }, Op::FaultEnd { vcpu }] {
                sketch.note(vm, &op);
                ops.push(op);
            }
        }
        if matches!(op, Op::PageOut { .. }) && choices.chance(2, 3) {
            Self::wait_for_page(choices, vm, sketch, focus, op, ops);
        }
        if matches!(op, Op::ProtNone { .. }) && choices.chance(1, 2) {
            Self::meet_no_page(choices, vm, sketch, focus, op, ops);
        }
        if vm.largest_leaf() != Level::Page4K && focus.has(OpKind::SlotFlags) && choices.chance(1, 4) {
            Self::log_from_now(choices, vm, sketch, op, ops);
        }
        if focus.has(OpKind::DirtyClear) && choices.chance(1, 6) {
            Self::write_again(choices, vm, sketch, focus, op, ops);
        }
        if vm.dirty_ring().is_some() && choices.chance(1, 3) {
            Self::fill_ring(choices, vm, op, ops);
        }
        if matches!(op, Op::GuestAccess { .. }) && focus.has(OpKind::WriteGpte) && choices.chance(1, 2) {
            self.remap(choices, vm, sketch, focus, op, ops);
        }
    }

    fn focus(&self, choices: &mut impl Choices, vm: &VmConfig, sketch: &ExpectedState) -> Focus {
        let mut hot = [0; 3];
        for frame in &mut hot {
            *frame = match sketch.any_slot(choices, |_, _| true) {
                // Just inside or just outside of either edge, or anywhere in the slot.
                Some((_, slot)) => match choices.below(6) {
                    0 => slot.frame.wrapping_sub(1),
                    1 => slot.frame + slot.frames,
                    2 => slot.frame,
                    3 => slot.frame + slot.frames - 1,
                    _ => slot.frame + choices.below(u32::from(slot.frames)) as u8,
                },
                None => choices.below(FRAMES as u32) as u8,
            } % FRAMES as u8;
        }
        let large = large_frames(vm);
        if large > 1 {
            // Several frames of one large leaf, so that what happens to one happens to all.
            let first = edge_near(vm, hot[0].into());
            for frame in &mut hot[1..] {
                if choices.chance(2, 3) {
                    *frame = (first + choices.below(large)).min(FRAMES as u32 - 1) as u8;
                }
            }
        }
        let mut kinds = self.profile.kinds;
        for (kind, _) in WEIGHTS {
            if choices.chance(1, 5) || PAGING.contains(&kind) && !vm.async_pf() {
                kinds = kinds.without(kind);
            }
        }
        if !kinds.contains(OpKind::Read) && !kinds.contains(OpKind::Write) {
            kinds = kinds.with(OpKind::Write);
        }
        Focus { hot, kinds }
    }

    fn op(&self, choices: &mut impl Choices, vm: &VmConfig, sketch: &ExpectedState, focus: &Focus) -> Op {
        let on = |kind| focus.has(kind);
        let total: u32 = WEIGHTS.iter().filter(|(kind, _)| on(*kind)).map(|(_, weight)| weight).sum();
        let translate = if on(OpKind::Translate) { TRANSLATE_WEIGHT } else { 0 };
        let mut left = choices.below(total + translate);
        let mut kind = OpKind::Translate;
        for (candidate, weight) in WEIGHTS {
            if on(candidate) {
                if left < weight {
                    kind = candidate;
                    break;
                }
                left -= weight;
            }
        }
        let begun = self.profile.windows && choices.chance(1, 3);
        let vcpu = choices.below(u32::from(vm.vcpus())) as u8;
        let access = match kind {
            OpKind::Read => Access::Read,
            OpKind::Write => Access::Write,
            OpKind::Execute => Access::Execute,
            _ => choices.pick(&Access::ALL),
        };
        match kind {
            OpKind::Read | OpKind::Write | OpKind::Execute => {
                let vcpu = (0..vm.vcpus()).map(|i| (vcpu + i) % vm.vcpus()).find(|&v| !sketch.faults[usize::from(v)]);
                match vcpu {
                    Some(vcpu) => Op::Access { vcpu, gpa: self.gpa(choices, vm, sketch, focus), access },
                    None => Op::FaultEnd { vcpu: 0 },
                }
            }
            OpKind::FaultBegin if self.profile.splits_faults() => {
                Op::FaultBegin { vcpu, gpa: self.gpa(choices, vm, sketch, focus), access }
            }
            OpKind::FaultBegin | OpKind::FaultEnd => match sketch.faults.iter().position(|&open| open) {
                Some(vcpu) => Op::FaultEnd { vcpu: vcpu as u8 },
                None => Op::Access { vcpu, gpa: self.gpa(choices, vm, sketch, focus), access },
            },
            OpKind::Prefault => {
                let vcpu = (0..vm.vcpus()).find(|&v| !sketch.faults[usize::from(v)]).unwrap_or(vcpu);
                Op::Prefault { vcpu, gpa: self.gpa(choices, vm, sketch, focus) }
            }
            OpKind::Unmap => self.unmap(choices, vm, sketch, focus),
            OpKind::UnmapBegin | OpKind::UnmapEnd => {
                let window = choices.below(NOTIFIER_WINDOWS as u32) as u8;
                if sketch.windows[usize::from(window)] {
                    Op::UnmapEnd { window }
                } else if kind == OpKind::UnmapBegin && self.profile.windows {
                    Op::UnmapBegin { window, range: self.hva(choices, vm, sketch, focus) }
                } else {
                    self.unmap(choices, vm, sketch, focus)
                }
            }
            OpKind::Collapse => self.collapse(choices, vm, sketch, focus),
            OpKind::Age => Op::Age { range: self.hva(choices, vm, sketch, focus) },
            OpKind::DirtyGet => match sketch.any_slot(choices, |_, slot| slot.flags.log_dirty) {
                Some((id, _)) => Op::DirtyGet { id },
                None => Op::DirtyGet { id: SlotId::user(0) },
            },
            OpKind::DirtyClear => self.dirty_clear(choices, vm, sketch),
            OpKind::WriteProtect => {
                let (gfn, _) = vm.stolen().split(self.gpa(choices, vm, sketch, focus));
                Op::WriteProtect { gfn }
            }
            OpKind::WriteTrack | OpKind::WriteUntrack => {
                let (gfn, _) = vm.stolen().split(self.gpa(choices, vm, sketch, focus));
                if kind == OpKind::WriteTrack { Op::WriteTrack { gfn } } else { Op::WriteUntrack { gfn } }
            }
            OpKind::SlotAliased => self.slot_aliased(choices, vm, sketch, focus),
            OpKind::SlotEnd if sketch.slot_pending => Op::SlotEnd,
            OpKind::SlotCreate | OpKind::SlotEnd => {
                let private = self.profile.internal_slots && choices.chance(1, 4);
                let id = sketch.free_id(choices, private);
                let frame = u32::from(focus.hot[choices.below(3) as usize]);
                let frames = if vm.stride() > 1 { slot_size(choices, vm) } else { 1 + choices.below(8) };
                let frames = frames.min(FRAMES as u32 - frame);
                Self::slot_op(id, self.create(choices, vm, frame, frames, private), begun)
            }
            OpKind::SlotDelete | OpKind::SlotMove | OpKind::SlotFlags => {
                self.change_slot(choices, vm, sketch, focus, kind, begun)
            }
            OpKind::AttributesEnd if sketch.attributes_pending => Op::AttributesEnd,
            OpKind::Attributes | OpKind::AttributesEnd => {
                let (gfn, pages) = Self::gfns(choices, vm, focus);
                let private = choices.chance(1, 2);
                if begun { Op::AttributesBegin { gfn, pages, private } } else { Op::Attributes { gfn, pages, private } }
            }
            OpKind::MemoryType => {
                let (gfn, pages) = Self::gfns(choices, vm, focus);
                Op::MemoryType { gfn, pages, memory: choices.pick(&MemoryType::ALL) }
            }
            OpKind::ZapEnd if sketch.zap_pending => Op::ZapEnd,
            OpKind::ZapBegin | OpKind::ZapEnd => {
                let (gfn, pages) = Self::gfns(choices, vm, focus);
                Op::ZapBegin { gfn, pages, leaves: choices.below(4) as u8 }
            }
            OpKind::NxRecover if vm.nx_huge_pages() => Op::NxRecover,
            OpKind::NxRecover => {
                Op::Access { vcpu, gpa: self.gpa(choices, vm, sketch, focus), access: Access::Execute }
            }
            OpKind::MmuPages => Op::MmuPages { pages: MMU_PAGES_MIN + choices.below(8) as u8 },
            OpKind::Backend => Op::Backend(choices.pick(&BackendMode::ALL)),
            OpKind::WriteGpte => self.write_gpte(choices, vm, sketch, focus),
            OpKind::GuestWalk | OpKind::GuestAccess => {
                self.guest_walk(choices, vm, sketch, focus, (kind, vcpu, access))
            }
            OpKind::GuestFlush => Op::GuestFlush { vcpu },
            OpKind::PageOut => Op::PageOut { range: self.hva(choices, vm, sketch, focus) },
            OpKind::ProtNone => Op::ProtNone { range: self.hva(choices, vm, sketch, focus) },
            OpKind::PageIn => Op::PageIn { range: self.hva(choices, vm, sketch, focus) },
            OpKind::PageReady => Op::PageReady { vcpu },
            OpKind::AsyncPfClear => Op::AsyncPfClear { vcpu },
            OpKind::Translate => {
                let table = self.gpa(choices, vm, sketch, focus);
                Op::Translate { vcpu, table, leaf: self.gpa(choices, vm, sketch, focus) }
            }
        }
    }

    fn unmap(&self, choices: &mut impl Choices, vm: &VmConfig, sketch: &ExpectedState, focus: &Focus) -> Op {
        Op::Unmap { range: self.hva(choices, vm, sketch, focus), by: self.reclaim(choices) }
    }

    fn reclaim(&self, choices: &mut impl Choices) -> Option<Reclaim> {
        let reclaims = self.profile.reclaims;
        if reclaims.is_empty() {
            return None;
        }
        let reclaim = reclaims.iter().nth(choices.below(reclaims.len() as u32) as usize);
        // These take a thousand times as long as the rest.
        let slow = matches!(reclaim, Some(Reclaim::Collapse | Reclaim::Fork));
        reclaim.filter(|_| !slow || choices.chance(1, 16))
    }

    fn gpa(&self, choices: &mut impl Choices, vm: &VmConfig, sketch: &ExpectedState, focus: &Focus) -> Gpa {
        let mut frame = match choices.below(8) {
            0 => choices.below(FRAMES as u32) as usize,
            1 => sketch.any_slot_frame(choices).unwrap_or(0),
            n => usize::from(focus.hot[n as usize % 3]),
        };
        if self.profile.few_holes && sketch.hva_of(vm, frame).is_none() && choices.chance(7, 8) {
            frame = sketch.any_slot_frame(choices).unwrap_or(frame);
        }
        vm.gpa(frame % FRAMES, choices.below(vm.stolen().alias_count() as u32) as usize)
    }

    /// A few frames from one that is in use, or all that a large leaf there would translate.
    fn gfns(choices: &mut impl Choices, vm: &VmConfig, focus: &Focus) -> (Gfn, u32) {
        let hot = u32::from(focus.hot[choices.below(3) as usize]);
        let whole = vm.stride() > 1 && choices.chance(1, 4);
        let (first, frames) = if whole { (edge_near(vm, hot), large_frames(vm)) } else { (hot, 1 + choices.below(3)) };
        let frames = frames.min(FRAMES as u32 - first) as usize;
        (vm.gfn(first as usize), vm.pages_of(frames) as u32)
    }

    fn hva(&self, choices: &mut impl Choices, vm: &VmConfig, sketch: &ExpectedState, focus: &Focus) -> HostPageRange {
        let index = match sketch.any_slot(choices, |_, _| true) {
            Some((_, slot)) => {
                let frame = focus.hot[choices.below(3) as usize];
                let inside = frame >= slot.frame && frame - slot.frame < slot.frames;
                let offset = if inside { frame - slot.frame } else { choices.below(u32::from(slot.frames)) as u8 };
                u32::from(slot.hva) + u32::from(offset)
            }
            None => choices.below(HOST_PAGES as u32),
        };
        if vm.stride() > 1 && choices.chance(1, 4) {
            large_around(choices, vm, index)
        } else {
            hva_near(choices, vm, index)
        }
    }

    /// A range of host pages with a whole huge one in it, or any where the host has none.
    fn collapse(&self, choices: &mut impl Choices, vm: &VmConfig, sketch: &ExpectedState, focus: &Focus) -> Op {
        let range = self.hva(choices, vm, sketch, focus);
        if vm.largest_leaf() == Level::Page4K {
            return Op::Unmap { range, by: self.reclaim(choices) };
        }
        Op::Collapse { range: large_around(choices, vm, vm.hva_index(range.start) as u32) }
    }
}

fn hva_near(choices: &mut impl Choices, vm: &VmConfig, index: u32) -> HostPageRange {
    let start = index.saturating_sub(choices.below(4) / 2).min(HOST_PAGES as u32 - 1);
    let blocks = (1 + choices.below(4)).min(HOST_PAGES as u32 - start);
    HostPageRange { start: vm.hva(start as usize), pages: vm.pages_of(blocks as usize) as u32 }
}

/// One or two of the large pages of a strided VM, from that in which host block `index` lies.
fn large_around(choices: &mut impl Choices, vm: &VmConfig, index: u32) -> HostPageRange {
    let large = large_frames(vm);
    let start = index / large * large;
    let blocks = (large * (1 + choices.below(2))).min(HOST_PAGES as u32 - start);
    HostPageRange { start: vm.hva(start as usize), pages: vm.pages_of(blocks as usize) as u32 }
}

/// Frames in one of the smallest large leaves of `vm` that hold several; at least 1.
fn large_frames(vm: &VmConfig) -> u32 {
    let several = |level: &Level| level.pages() > vm.stride();
    [Level::Page2M, Level::Page1G].into_iter().find(several).map_or(1, |level| (level.pages() / vm.stride()) as u32)
}

/// How many strides into the address space `frame` lies.
fn gfn_index(vm: &VmConfig, frame: u32) -> u32 {
    (vm.gfn(frame as usize).raw() / vm.stride()) as u32
}

/// The first frame of the large leaf that `frame` lies in.
fn edge_near(vm: &VmConfig, frame: u32) -> u32 {
    frame.saturating_sub(gfn_index(vm, frame) % large_frames(vm))
}

/// Any bytes are a program: for byte-oriented fuzzers. The meaning of bytes is not stable across versions; keep text.
impl<'a> Arbitrary<'a> for Program {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let mut program = Program::default();
        Generator::new(Profile::default()).program(&mut FromBytes(bytes), &mut program);
        Ok(program)
    }
}
