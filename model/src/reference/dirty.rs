//! What must and what may be in the dirty log and in the dirty rings.

use super::Model;
use crate::frame_set::FrameSet;
use crate::limits::DIRTY_RING_RESERVED;
use crate::mmu::Exit;
use crate::program::{Access, SlotId};

impl Model {
    /// Whether there may be no room in the dirty ring of `vcpu` for what one access adds.
    pub(super) fn may_be_full(&self, vcpu: u8) -> bool {
        let listed = self.ring_may[usize::from(vcpu)];
        self.vm.dirty_ring().is_some_and(|entries| listed + DIRTY_RING_RESERVED > entries)
    }

    /// `vcpu` touched one of `frames`, and may have listed it in its dirty ring.
    pub(super) fn list_dirty(&mut self, vcpu: u8, frames: FrameSet) {
        let Some(entries) = self.vm.dirty_ring() else { return };
        if !self.logged_frames().intersect(frames).is_empty() {
            let listed = &mut self.ring_may[usize::from(vcpu)];
            *listed = (*listed + DIRTY_RING_RESERVED).min(entries);
        }
    }

    /// An access reached `frame`, or would have if it was not retried.
    pub(super) fn log_access(&mut self, frame: usize, access: Access, exit: &Exit) {
        let Some((id, slot)) = self.slot_at(frame) else { return };
        if !slot.flags.log_dirty {
            return;
        }
        let settling = self.settling() == Some(id);
        let one = FrameSet::one(frame);
        // Reads too: a writable slot may be mapped writable on a read fault, and is then dirty from the start.
        self.log_may = self.log_may.union(one);
        if access == Access::Write && matches!(exit, Exit::Memory(_) | Exit::Emulated(_)) && !settling {
            self.log_must = self.log_must.union(one);
        }
    }

    /// The slot between the two halves of a change: while its log is being switched on, SPTEs from before may still be
    /// written through without being logged.
    pub(super) fn settling(&self) -> Option<SlotId> {
        self.change.map(|change| change.id)
    }

    /// The target was seen to hold writable translations of `frames`. The guest may write through them at any time, so
    /// where writes are logged these frames must be in the log from now on.
    ///
    /// `new` are those of `frames` that the last op made writable. While logging is being switched on only these may be
    /// dirty already: what was writable before has to be taken back when the change ends.
    pub fn writable_seen(&mut self, frames: FrameSet, new: FrameSet) {
        if frames.is_empty() {
            return;
        }
        let settling = self.settling().map_or(FrameSet::EMPTY, |id| self.slot_frames(id));
        let logged = frames.intersect(self.logged_frames()).minus(settling);
        self.log_must = self.log_must.union(logged);
        self.log_may = self.log_may.union(frames.minus(settling)).union(new);
    }

    pub(super) fn forget_log(&mut self, frames: FrameSet) {
        self.log_must = self.log_must.minus(frames);
        self.log_may = self.log_may.minus(frames);
    }
}
