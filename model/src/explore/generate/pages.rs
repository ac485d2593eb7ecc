//! Accesses to pages that the host has taken away: one that is paged out is waited for until it was read in, one that nobody can have
//! comes back when it is replaced.

use super::expected_state::ExpectedState;
use super::generator::{Focus, Generator};
use crate::explore::choices::Choices;
use crate::limits::FRAMES;
use crate::program::{Access, HostPageRange, Op, VmConfig};

impl Generator {
    /// After an op that paged out memory, what a vCPU sees of that which needs some of it: mostly all of it, by two names.
    pub(super) fn wait_for_page(
        choices: &mut impl Choices,
        vm: &VmConfig,
        sketch: &ExpectedState,
        focus: &Focus,
        op: Op,
        ops: &mut Vec<Op>,
    ) {
        let Op::PageOut { range } = op else { return };
        let Some(frame) = sketch.any_frame_of(choices, vm, range) else { return };
        let vcpu = choices.below(u32::from(vm.vcpus())) as u8;
        let accesses = [(); 2].map(|()| {
            let gpa = vm.gpa(frame, Self::alias(choices, vm));
            Op::Access { vcpu, gpa, access: choices.pick(&Access::ALL) }
        });
        let cleared = choices.chance(1, 4).then_some(Op::AsyncPfClear { vcpu });
        let rest = [Some(Op::PageIn { range }), cleared, Some(Op::PageReady { vcpu })];
        let way = accesses.into_iter().chain(rest.into_iter().flatten());
        ops.extend(way.filter(|op| focus.has(op.kind()) && choices.chance(7, 8)));
    }

    /// After an op that left no page to be had, an access that needs one, and another once there is one again.
    pub(super) fn meet_no_page(
        choices: &mut impl Choices,
        vm: &VmConfig,
        sketch: &ExpectedState,
        focus: &Focus,
        op: Op,
        ops: &mut Vec<Op>,
    ) {
        let Op::ProtNone { range } = op else { return };
        let Some(frame) = sketch.any_frame_of(choices, vm, range) else { return };
        let mut access = || {
            let vcpu = choices.below(u32::from(vm.vcpus())) as u8;
            let gpa = vm.gpa(frame, Self::alias(choices, vm));
            Op::Access { vcpu, gpa, access: choices.pick(&Access::ALL) }
        };
        let way = [access(), Op::Unmap { range, by: None }, access()];
        ops.extend(way.into_iter().filter(|op| focus.has(op.kind())));
    }
}

impl ExpectedState {
    /// A frame that a page of `range` is behind, if that page is behind any.
    fn any_frame_of(&self, choices: &mut impl Choices, vm: &VmConfig, range: HostPageRange) -> Option<usize> {
        let page = vm.hva_index(range.start) + choices.below(vm.frames_in(range.pages.into()) as u32) as usize;
        let (_, slot) = self.any_slot(choices, |_, slot| (slot.hva..slot.hva + slot.frames).contains(&(page as u8)))?;
        Some((usize::from(slot.frame) + page - usize::from(slot.hva)) % FRAMES)
    }
}
