//! Which ops mean something in a state; the others are skipped.

use super::Model;
use crate::addr::{Gfn, HostPage};
use crate::frame_set::FrameSet;
use crate::host::Host;
use crate::limits::FRAMES;
use crate::program::{Op, SlotChange, SlotFlags, SlotId};

impl Model {
    /// Whether `op` means anything in this state; otherwise it is skipped. `host` is the host before the op.
    pub fn accepts(&self, host: &Host, op: &Op) -> bool {
        if self.vm.shared_private() && !Self::is_for_shared_private(op) {
            return false;
        }
        let idle = |vcpu: u8| vcpu < self.vm.vcpus() && self.faults[usize::from(vcpu)].is_none();
        match *op {
            // KVM holds slots_lock for a whole change, and waits for invalidations before it swaps the slots.
            Op::Slot { id, change } | Op::SlotBegin { id, change } => {
                self.slots_lock_is_free() && !host.any_invalidating() && self.change_is_legal(id, change)
            }
            Op::SlotEnd => self.change.is_some() && !host.any_invalidating(),
            Op::Access { vcpu, .. }
            | Op::FaultBegin { vcpu, .. }
            | Op::Prefault { vcpu, .. }
            | Op::Translate { vcpu, .. }
            | Op::WriteGpte { vcpu, .. }
            | Op::GuestWalk { vcpu, .. }
            | Op::GuestFlush { vcpu }
            | Op::PageReady { vcpu }
            | Op::AsyncPfClear { vcpu } => idle(vcpu),
            Op::GuestAccess { vcpu, .. } => idle(vcpu) && self.vm.stride() == 1,
            Op::FaultEnd { vcpu } => self.faults[usize::from(vcpu)].is_some(),
            Op::UnmapBegin { window, .. } => host.window(window).is_none(),
            Op::UnmapEnd { window } => host.window(window).is_some(),
            // The dirty log ioctls take slots_lock too.
            Op::DirtyGet { id } => self.slots_lock_is_free() && self.is_logged(id),
            Op::DirtyClear { id, gfn, pages } => {
                let frames = self.vm.frames(gfn, pages.into());
                self.slots_lock_is_free() && self.is_logged(id) && frames.minus(self.slot_frames(id)).is_empty()
            }
            // Whoever tracks holds the memslots still meanwhile.
            Op::WriteTrack { gfn } => self.change.is_none() && self.is_tracked(gfn) == Some(false),
            Op::WriteUntrack { gfn } => self.change.is_none() && self.is_tracked(gfn) == Some(true),
            Op::SlotAliased { id, .. } => self.slots_lock_is_free() && self.slots[id.index()].is_none(),
            Op::Collapse { range } => range.holds_huge(),
            Op::PageOut { .. } | Op::PageIn { .. } => self.vm.async_pf(),
            Op::Unmap { .. } | Op::ProtNone { .. } | Op::Age { .. } | Op::WriteProtect { .. } => true,
            Op::Attributes { .. } | Op::AttributesBegin { .. } => self.slots_lock_is_free(),
            Op::AttributesEnd => self.memory_attributes.is_changing(),
            Op::ZapBegin { .. } => self.zapping.is_none(),
            Op::ZapEnd => self.zapping.is_some(),
            Op::NxRecover => self.vm.nx_huge_pages(),
            Op::MemoryType { .. } | Op::MmuPages { .. } | Op::Backend(_) => true,
        }
    }

    /// Whether `op` means anything where the stolen bit is the shared bit. Memslots with a guest_memfd are writable, not logged, and
    /// never change (`check_memory_region_flags()`); the guest's tables are private.
    fn is_for_shared_private(op: &Op) -> bool {
        match *op {
            Op::Slot { id, change } | Op::SlotBegin { id, change } => match change {
                SlotChange::Create { flags, .. } => flags == SlotFlags::default() && !id.is_internal(),
                SlotChange::Delete => true,
                SlotChange::Move { .. } | SlotChange::Flags(_) => false,
            },
            Op::WriteTrack { .. }
            | Op::WriteProtect { .. }
            | Op::WriteGpte { .. }
            | Op::Translate { .. }
            | Op::GuestWalk { .. }
            | Op::GuestAccess { .. }
            | Op::GuestFlush { .. } => false,
            _ => true,
        }
    }

    /// Whether nobody is in the middle of what KVM does under `slots_lock`: changes of memslots and of attributes.
    pub(super) fn slots_lock_is_free(&self) -> bool {
        self.change.is_none() && !self.memory_attributes.is_changing()
    }

    pub(super) fn is_logged(&self, id: SlotId) -> bool {
        self.slots[id.index()].is_some_and(|slot| slot.flags.log_dirty)
    }

    /// Whether writes to `gfn` are tracked, if a memslot is there.
    pub(super) fn is_tracked(&self, gfn: Gfn) -> Option<bool> {
        let frame = self.vm.frame(gfn)?;
        self.slot_at(frame).map(|_| self.tracked.contains(frame))
    }

    pub(super) fn change_is_legal(&self, id: SlotId, change: SlotChange) -> bool {
        let slot = self.slots[id.index()];
        match change {
            SlotChange::Create { gfn, pages, hva, flags } => {
                let plain = flags == SlotFlags::default();
                let frames = self.vm.frames_in(pages.into());
                let bound = self.vm.shared_private() && self.is_bound(hva, frames);
                slot.is_none() && (plain || !id.is_internal()) && !bound && self.is_free(gfn, frames, id)
            }
            SlotChange::Delete => slot.is_some(),
            SlotChange::Move { gfn } => slot.is_some_and(|slot| {
                !id.is_internal()
                    && self.vm.frame(gfn) != Some(slot.frame.into())
                    && self.is_free(gfn, slot.frames.into(), id)
            }),
            SlotChange::Flags(flags) => slot.is_some_and(|slot| !id.is_internal() && slot.flags != flags),
        }
    }

    /// Whether a memslot has some of the private pages beside `frames` blocks from `hva`: another cannot have them too
    /// (`kvm_gmem_bind()`).
    fn is_bound(&self, hva: HostPage, frames: usize) -> bool {
        let blocks = |hva: HostPage, frames: usize| FrameSet::range(self.vm.hva_index(hva), frames);
        let wanted = blocks(hva, frames);
        self.slots.iter().flatten().any(|slot| !blocks(slot.hva, slot.frames.into()).intersect(wanted).is_empty())
    }

    /// Whether a slot of `frames` frames fits at `gfn`, disregarding slot `id` itself.
    pub(super) fn is_free(&self, gfn: Gfn, frames: usize, id: SlotId) -> bool {
        let fits = self.vm.frame(gfn).is_some_and(|frame| frame + frames <= FRAMES);
        let wanted = self.vm.frame(gfn).map_or(FrameSet::EMPTY, |frame| FrameSet::range(frame, frames));
        let mut others = self.slots.iter().enumerate().filter(|(other, _)| *other != id.index());
        fits && others.all(|(_, slot)| slot.is_none_or(|slot| slot.frames().intersect(wanted).is_empty()))
    }
}
