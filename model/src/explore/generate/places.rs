//! Where an op is: frames and host pages near those that other ops use.

use super::expected_state::ExpectedState;
use super::generator::{Focus, Generator};
use crate::addr::{Gfn, Gpa, Level};
use crate::explore::choices::Choices;
use crate::limits::{FRAMES, HOST_PAGES};
use crate::program::{HostPageRange, Op, VmConfig};

impl Generator {
    pub(super) fn gpa(&self, choices: &mut impl Choices, vm: &VmConfig, sketch: &ExpectedState, focus: &Focus) -> Gpa {
        let mut frame = match choices.below(8) {
            0 => choices.below(FRAMES as u32) as usize,
            1 => sketch.any_slot_frame(choices).unwrap_or(0),
            n => usize::from(focus.hot[n as usize % 3]),
        };
        if self.profile.few_holes && sketch.hva_of(vm, frame).is_none() && choices.chance(7, 8) {
            frame = sketch.any_slot_frame(choices).unwrap_or(frame);
        }
        let frame = frame % FRAMES;
        if vm.shared_private() && choices.chance(3, 4) {
            // By the address of the kind of memory that is there.
            return vm.gpa(frame, usize::from(!sketch.private.contains(frame)));
        }
        vm.gpa(frame, choices.below(vm.stolen().alias_count() as u32) as usize)
    }

    /// A few frames from one that is in use, or all that a large leaf there would translate.
    pub(super) fn gfns(choices: &mut impl Choices, vm: &VmConfig, focus: &Focus) -> (Gfn, u32) {
        let hot = u32::from(focus.hot[choices.below(3) as usize]);
        let whole = vm.stride() > 1 && choices.chance(1, 4);
        let (first, frames) = if whole { (edge_near(vm, hot), large_frames(vm)) } else { (hot, 1 + choices.below(3)) };
        let frames = frames.min(FRAMES as u32 - first) as usize;
        (vm.gfn(first as usize), vm.pages_of(frames) as u32)
    }

    pub(super) fn hva(
        &self,
        choices: &mut impl Choices,
        vm: &VmConfig,
        sketch: &ExpectedState,
        focus: &Focus,
    ) -> HostPageRange {
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
    pub(super) fn collapse(
        &self,
        choices: &mut impl Choices,
        vm: &VmConfig,
        sketch: &ExpectedState,
        focus: &Focus,
    ) -> Op {
        let range = self.hva(choices, vm, sketch, focus);
        if vm.largest_leaf() == Level::Page4K {
            return Op::Unmap { range, by: self.reclaim(choices) };
        }
        Op::Collapse { range: large_around(choices, vm, vm.hva_index(range.start) as u32) }
    }
}

pub(super) fn hva_near(choices: &mut impl Choices, vm: &VmConfig, index: u32) -> HostPageRange {
    let start = index.saturating_sub(choices.below(4) / 2).min(HOST_PAGES as u32 - 1);
    let blocks = (1 + choices.below(4)).min(HOST_PAGES as u32 - start);
    HostPageRange { start: vm.hva(start as usize), pages: vm.pages_of(blocks as usize) as u32 }
}

/// One or two of the large pages of a strided VM, from that in which host block `index` lies.
pub(super) fn large_around(choices: &mut impl Choices, vm: &VmConfig, index: u32) -> HostPageRange {
    let large = large_frames(vm);
    let start = index / large * large;
    let blocks = (large * (1 + choices.below(2))).min(HOST_PAGES as u32 - start);
    HostPageRange { start: vm.hva(start as usize), pages: vm.pages_of(blocks as usize) as u32 }
}

/// Frames in one of the smallest large leaves of `vm` that hold several; at least 1.
pub(super) fn large_frames(vm: &VmConfig) -> u32 {
    let several = |level: &Level| level.pages() > vm.stride();
    [Level::Page2M, Level::Page1G].into_iter().find(several).map_or(1, |level| (level.pages() / vm.stride()) as u32)
}

/// How many strides into the address space `frame` lies.
pub(super) fn gfn_index(vm: &VmConfig, frame: u32) -> u32 {
    (vm.gfn(frame as usize).raw() / vm.stride()) as u32
}

/// The first frame of the large leaf that `frame` lies in.
pub(super) fn edge_near(vm: &VmConfig, frame: u32) -> u32 {
    frame.saturating_sub(gfn_index(vm, frame) % large_frames(vm))
}
