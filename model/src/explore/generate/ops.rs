//! One op, drawn.

use super::expected_state::ExpectedState;
use super::generator::{Focus, Generator};
use super::profile::{TRANSLATE_WEIGHT, WEIGHTS};
use super::slots::slot_size;
use crate::explore::choices::Choices;
use crate::limits::{FRAMES, MMU_PAGES_MIN, NOTIFIER_WINDOWS};
use crate::program::{Access, BackendMode, MemoryType, Op, OpKind, Reclaim, SlotId, VmConfig};

/// A kind that means something in a VM with a shared bit, instead of one that does not.
const fn for_shared_private(kind: OpKind) -> OpKind {
    match kind {
        OpKind::DirtyGet | OpKind::DirtyClear | OpKind::SlotFlags | OpKind::SlotMove => OpKind::Attributes,
        OpKind::WriteProtect | OpKind::WriteTrack | OpKind::WriteUntrack => OpKind::Unmap,
        OpKind::WriteGpte | OpKind::GuestAccess => OpKind::Write,
        OpKind::GuestWalk | OpKind::GuestFlush | OpKind::Translate => OpKind::Read,
        kind => kind,
    }
}

impl Generator {
    pub(super) fn op(&self, choices: &mut impl Choices, vm: &VmConfig, sketch: &ExpectedState, focus: &Focus) -> Op {
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
        if vm.shared_private() {
            kind = for_shared_private(kind);
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

    pub(super) fn unmap(&self, choices: &mut impl Choices, vm: &VmConfig, sketch: &ExpectedState, focus: &Focus) -> Op {
        let range = self.hva(choices, vm, sketch, focus);
        if vm.shared_private() && choices.chance(1, 2) {
            return Op::Unmap { range, by: Some(Reclaim::PunchHole) };
        }
        Op::Unmap { range, by: self.reclaim(choices) }
    }

    pub(super) fn reclaim(&self, choices: &mut impl Choices) -> Option<Reclaim> {
        let reclaims = self.profile.reclaims;
        if reclaims.is_empty() {
            return None;
        }
        let reclaim = reclaims.iter().nth(choices.below(reclaims.len() as u32) as usize);
        // These take a thousand times as long as the rest.
        let slow = matches!(reclaim, Some(Reclaim::Collapse | Reclaim::Fork));
        reclaim.filter(|_| !slow || choices.chance(1, 16))
    }
}
