//! Ops about the dirty log, and writes that it is full of.

use super::expected_state::{ExpectedSlot, ExpectedState};
use super::generator::{Focus, Generator};
use crate::explore::choices::Choices;
use crate::limits::FRAMES;
use crate::program::{Access, Op, OpKind, SlotChange, SlotFlags, SlotId, VmConfig};

impl Generator {
    pub(super) fn dirty_clear(&self, choices: &mut impl Choices, vm: &VmConfig, sketch: &ExpectedState) -> Op {
        match sketch.any_slot(choices, |_, slot| slot.flags.log_dirty) {
            Some((id, slot)) if choices.chance(3, 4) => {
                let pages = vm.pages_of(slot.frames.into()) as u32;
                Op::DirtyClear { id, gfn: vm.gfn(slot.frame.into()), pages }
            }
            Some((id, slot)) => {
                let skip = choices.below(u32::from(slot.frames)) as u8;
                let frames = 1 + choices.below(u32::from(slot.frames - skip)) as usize;
                let pages = vm.pages_of(frames) as u32;
                Op::DirtyClear { id, gfn: vm.gfn((slot.frame + skip).into()), pages }
            }
            None => Op::DirtyClear { id: SlotId::user(0), gfn: vm.base(), pages: vm.stride() as u32 },
        }
    }

    /// After a write to a memslot that is logged, the log forgets it, and the page is written again by any of its names: what was
    /// expected to show that write has to, even if something else has come to expect writes to the page meanwhile.
    pub(super) fn write_again(
        choices: &mut impl Choices,
        vm: &VmConfig,
        sketch: &ExpectedState,
        focus: &Focus,
        op: Op,
        ops: &mut Vec<Op>,
    ) {
        let Op::Access { vcpu, gpa, access: Access::Write } = op else { return };
        let Some((frame, _)) = vm.locate(gpa) else { return };
        let logged = |_, slot: &ExpectedSlot| slot.flags.log_dirty && slot.holds(frame);
        let Some((id, _)) = sketch.any_slot(choices, logged) else { return };
        let gfn = vm.gfn(frame);
        ops.push(Op::DirtyClear { id, gfn, pages: vm.stride() as u32 });
        if focus.has(OpKind::WriteTrack) && choices.chance(1, 4) {
            ops.push(Op::WriteTrack { gfn });
        }
        ops.push(Op::Access { vcpu, gpa: vm.gpa(frame, Self::alias(choices, vm)), access: Access::Write });
    }

    /// After a write, writes of the same vCPU to the frames that follow: some of them fill a small ring.
    pub(super) fn fill_ring(choices: &mut impl Choices, vm: &VmConfig, op: Op, ops: &mut Vec<Op>) {
        if let Op::Access { vcpu, gpa, access: Access::Write } = op
            && let Some((frame, _)) = vm.locate(gpa)
        {
            let after = frame + 1..FRAMES.min(frame + 1 + choices.below(6) as usize);
            ops.extend(after.map(|frame| {
                let gpa = vm.gpa(frame, Self::alias(choices, vm));
                Op::Access { vcpu, gpa, access: Access::Write }
            }));
        }
    }

    /// After a write to a memslot that is not logged, the log is switched on, and the same write again: over what is mapped already,
    /// large leaves above all, which are there only where nothing was logged.
    pub(super) fn log_from_now(
        choices: &mut impl Choices,
        vm: &VmConfig,
        sketch: &mut ExpectedState,
        op: Op,
        ops: &mut Vec<Op>,
    ) {
        let Op::Access { vcpu, gpa, access: Access::Write } = op else { return };
        let Some((frame, _)) = vm.locate(gpa) else { return };
        let plain = |slot: &ExpectedSlot| slot.flags == SlotFlags::default() && slot.holds(frame);
        let Some((id, slot)) = sketch.any_slot(choices, |id, slot| !id.is_internal() && plain(slot)) else { return };
        let switched = Op::Slot { id, change: SlotChange::Flags(SlotFlags { log_dirty: true, ..slot.flags }) };
        sketch.note(vm, &switched);
        ops.extend([switched, Op::Access { vcpu, gpa, access: Access::Write }]);
    }
}
