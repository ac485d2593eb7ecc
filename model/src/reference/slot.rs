//! A memslot as the model keeps it, and a change of one that has begun and not ended.

use crate::addr::HostPage;
use crate::frame_set::FrameSet;
use crate::program::{SlotChange, SlotFlags, SlotId, VmConfig};

/// A memslot as the model knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Slot {
    pub(super) frame: u8,
    pub(super) frames: u8,
    pub(super) hva: HostPage,
    pub(super) flags: SlotFlags,
    pub(super) invalid: bool,
}

impl Slot {
    pub(super) fn frames(&self) -> FrameSet {
        FrameSet::range(self.frame.into(), self.frames.into())
    }

    pub(super) fn hva_of(&self, vm: &VmConfig, frame: usize) -> HostPage {
        self.hva.add(vm.pages_of(frame - usize::from(self.frame)))
    }
}

#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct PendingChange {
    pub(super) id: SlotId,
    pub(super) change: SlotChange,
}
