//! What can be renamed in a program without a difference, and the first program of those that differ in names only.

use super::Scope;
use crate::addr::HostPage;
use crate::limits::NOTIFIER_WINDOWS;
use crate::program::{Op, SlotChange, SlotId};

/// What can be renamed.
#[derive(Clone, Copy)]
pub(super) enum Class {
    Vcpu,
    UserSlot,
    InternalSlot,
    HostBlock,
    Window,
    StolenBit,
}

pub(super) const CLASSES: usize = 6;

/// The most names in one op, such as the vCPU and the aliases of both addresses of a walk.
pub(super) const NAMES: usize = 3;

/// How many names of each class a program has used.
pub(super) type Used = [u8; CLASSES];

#[derive(Clone, Copy)]
pub(super) struct Letter {
    pub(super) op: Op,
    pub(super) names: [Option<(Class, u8)>; NAMES],
}

impl Scope {
    /// How many names each class has, in the order of [`Class`].
    pub(super) fn names(&self) -> Used {
        let (private, slots) = (u8::from(self.slots > 1), self.slots as u8);
        let bits = self.vm.stolen().bits().len() as u8;
        [self.vm.vcpus(), slots - private, private, slots, NOTIFIER_WINDOWS as u8, bits]
    }

    pub(super) fn letter(&self, op: Op) -> Letter {
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
}
