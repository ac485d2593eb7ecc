//! A whole program, op after op.

use super::expected_state::ExpectedState;
use super::generator::{Focus, Generator};
use super::places::{edge_near, large_frames};
use super::profile::{PAGING, Profile, WEIGHTS};
use crate::addr::Level;
use crate::explore::choices::{Choices, FromBytes};
use crate::limits::FRAMES;
use crate::program::{Op, OpKind, Program, VmConfig};
use arbitrary::{Arbitrary, Unstructured};

impl Generator {
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
    pub(super) fn extend(
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

    pub(super) fn focus(&self, choices: &mut impl Choices, vm: &VmConfig, sketch: &ExpectedState) -> Focus {
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
}

/// Any bytes are a program: for byte-oriented fuzzers. The meaning of bytes is not stable across versions; keep text.
impl<'a> Arbitrary<'a> for Program {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let mut program = Program::default();
        Generator::new(Profile::default()).program(&mut FromBytes(bytes), &mut program);
        Ok(program)
    }
}
