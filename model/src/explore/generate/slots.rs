//! Memslots: the first, and what becomes of them.

use super::expected_state::ExpectedState;
use super::generator::{Focus, Generator};
use super::places::{edge_near, gfn_index, large_frames};
use crate::addr::{Gfn, Level};
use crate::explore::choices::Choices;
use crate::limits::{FRAMES, HOST_PAGES};
use crate::program::{Op, OpKind, SlotChange, SlotFlags, SlotId, VmConfig};

/// Where the window's second leaf table begins.
const TABLE_EDGE: Gfn = Gfn::new(Level::Page2M.pages());

impl Generator {
    /// The first slots: a few that touch, overlap in hva, or leave holes, one of them perhaps private.
    pub(super) fn layout(
        &self,
        choices: &mut impl Choices,
        vm: &VmConfig,
        sketch: &mut ExpectedState,
        ops: &mut Vec<Op>,
    ) {
        let mut frame = choices.below(FRAMES as u32 / 2);
        if vm.stride() > 1 && choices.chance(1, 2) {
            frame = edge_near(vm, frame);
        }
        if vm.stride() == 1 && choices.chance(1, 8) {
            // Over the edge where a leaf table begins: a table of the guest that lies there has its gfn.
            frame = TABLE_EDGE.offset_from(vm.base()).map_or(frame, |edge| edge as u32 - 1);
        }
        for n in 0..1 + choices.below(3) {
            let frames = slot_size(choices, vm);
            if frame + frames > FRAMES as u32 {
                break;
            }
            let private = self.profile.internal_slots && n > 0 && choices.chance(1, 2);
            let id = if private { SlotId::internal(n as u8 - 1) } else { SlotId::user(n as u8) };
            let op = Op::Slot { id, change: self.create(choices, vm, frame, frames, private) };
            sketch.note(vm, &op);
            ops.push(op);
            frame += frames + if choices.chance(1, 4) { choices.below(4) } else { 0 };
        }
    }

    pub(super) fn create(
        &self,
        choices: &mut impl Choices,
        vm: &VmConfig,
        frame: u32,
        frames: u32,
        private: bool,
    ) -> SlotChange {
        let most = HOST_PAGES as u32 - frames;
        let mut hva = choices.below(most + 1);
        if choices.chance(1, 2) {
            hva &= !7;
        } else if vm.stride() > 1 && choices.chance(1, 2) {
            hva &= !31;
        }
        if vm.stride() > 1 && choices.chance(3, 4) {
            // As far into a large page as the gfn is, without which no large leaf can map it.
            let large = large_frames(vm);
            let congruent = hva / large * large + gfn_index(vm, frame) % large;
            hva = if congruent <= most { congruent } else { congruent.saturating_sub(large).min(most) };
        }
        let mut flags = if private || vm.shared_private() { SlotFlags::default() } else { self.flags(choices) };
        // Large leaves come before logging.
        flags.log_dirty &= vm.stride() == 1 || choices.chance(1, 2);
        // Without logging rings stay empty.
        flags.log_dirty |= vm.dirty_ring().is_some() && !private && !vm.shared_private();
        let pages = vm.pages_of(frames as usize) as u32;
        SlotChange::Create { gfn: vm.gfn(frame as usize), pages, hva: vm.hva(hva as usize), flags }
    }

    fn flags(&self, choices: &mut impl Choices) -> SlotFlags {
        SlotFlags { readonly: choices.chance(1, 6), log_dirty: choices.chance(1, 2) && self.profile.log_dirty }
    }

    pub(super) fn slot_op(id: SlotId, change: SlotChange, begun: bool) -> Op {
        if begun { Op::SlotBegin { id, change } } else { Op::Slot { id, change } }
    }

    /// A memslot under an alias, or under its base name where there are no aliases.
    pub(super) fn slot_aliased(
        &self,
        choices: &mut impl Choices,
        vm: &VmConfig,
        sketch: &ExpectedState,
        focus: &Focus,
    ) -> Op {
        let id = sketch.free_id(choices, false);
        let frame = usize::from(focus.hot[choices.below(3) as usize]);
        let frames = (1 + choices.below(4) as usize).min(FRAMES - frame);
        let (pages, hva) = (vm.pages_of(frames) as u32, vm.hva(choices.below(HOST_PAGES as u32 - 4) as usize));
        let aliases = vm.stolen().alias_count() as u32;
        if aliases == 1 {
            let change = SlotChange::Create { gfn: vm.gfn(frame), pages, hva, flags: SlotFlags::default() };
            return Op::Slot { id, change };
        }
        Op::SlotAliased { id, gpa: vm.gpa(frame, 1 + choices.below(aliases - 1) as usize), pages, hva }
    }

    pub(super) fn change_slot(
        &self,
        choices: &mut impl Choices,
        vm: &VmConfig,
        sketch: &ExpectedState,
        focus: &Focus,
        kind: OpKind,
        begun: bool,
    ) -> Op {
        let found = sketch.any_slot(choices, |id, _| kind == OpKind::SlotDelete || !id.is_internal());
        let Some((id, slot)) = found else {
            let frame = choices.below(FRAMES as u32 - 8);
            return Self::slot_op(SlotId::user(0), self.create(choices, vm, frame, 4, false), begun);
        };
        let change = match kind {
            OpKind::SlotDelete => SlotChange::Delete,
            OpKind::SlotMove => {
                let room = FRAMES as u8 - slot.frames;
                let frame = focus.hot[choices.below(3) as usize].min(room);
                SlotChange::Move { gfn: vm.gfn(frame.into()) }
            }
            _ => {
                let flip = choices.chance(3, 4);
                let readonly = slot.flags.readonly != choices.chance(1, 4);
                SlotChange::Flags(SlotFlags {
                    readonly,
                    log_dirty: slot.flags.log_dirty != flip && self.profile.log_dirty,
                })
            }
        };
        Self::slot_op(id, change, begun)
    }
}

/// Frames of a slot: few, some, or about as many as a large leaf has.
pub(super) fn slot_size(choices: &mut impl Choices, vm: &VmConfig) -> u32 {
    let large = large_frames(vm);
    if vm.stride() > 1 && choices.chance(3, 4) {
        return match choices.below(6) {
            0 => (large - 1).max(1),
            1 => (large + 1).min(FRAMES as u32),
            2 | 3 => (2 * large).min(FRAMES as u32),
            _ => large,
        };
    }
    let most = if choices.chance(1, 4) { 16 } else { 4 };
    1 + choices.below(most)
}
