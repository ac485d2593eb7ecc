//! What a memslot change does, in its two halves.

use super::model::NO_SLOT;
use super::slot::{PendingChange, Slot};
use super::{Allowed, Model};
use crate::frame_set::FrameSet;
use crate::limits::{FRAMES, USER_SLOTS};
use crate::program::{Rights, SlotChange, SlotId};

impl Model {
    pub(super) fn slot_begin(&mut self, id: SlotId, change: SlotChange, allowed: &mut Allowed) {
        self.race_faults();
        allowed.done = true;
        self.change = Some(PendingChange { id, change });
        let Some(slot) = &mut self.slots[id.index()] else { return };
        match change {
            SlotChange::Create { .. } => {}
            SlotChange::Flags(flags) if flags.readonly == slot.flags.readonly => {
                slot.flags = flags;
                let frames = slot.frames();
                self.forget_log(frames);
            }
            SlotChange::Delete | SlotChange::Move { .. } | SlotChange::Flags(_) => {
                slot.invalid = true;
                allowed.changed = slot.frames();
            }
        }
    }

    pub(super) fn slot_end(&mut self, allowed: &mut Allowed) {
        self.race_faults();
        allowed.done = true;
        let Some(PendingChange { id, change }) = self.change.take() else { return };
        let before = self.slots[id.index()];
        let after = match change {
            SlotChange::Create { gfn, pages, hva, flags } => {
                let frame = self.vm.frame(gfn).unwrap_or(0) as u8;
                Some(Slot { frame, frames: self.vm.frames_in(pages.into()) as u8, hva, flags, invalid: false })
            }
            SlotChange::Delete => None,
            SlotChange::Move { gfn } => {
                let frame = self.vm.frame(gfn).unwrap_or(0) as u8;
                before.map(|slot| Slot { frame, invalid: false, ..slot })
            }
            SlotChange::Flags(flags) => before.map(|slot| Slot { flags, invalid: false, ..slot }),
        };
        let touched = [before, after].into_iter().flatten().fold(FrameSet::EMPTY, |set, slot| set.union(slot.frames()));
        let settled = matches!((change, before), (SlotChange::Flags(_), Some(slot)) if !slot.invalid);
        if settled {
            // Only dirty logging was switched. Pages written since the begin may stay writable, because they are logged.
            if after.is_some_and(|slot| slot.flags.log_dirty) {
                (allowed.revoked, allowed.revoked_rights) = (touched.minus(self.log_may), Rights::W);
            }
        } else {
            self.tracked = self.tracked.minus(touched);
            self.forget_tables(touched);
            let kept = match (change, before, after) {
                // A moved slot keeps its dirty bitmap (KVM_MR_MOVE in kvm_prepare_memory_region()).
                (SlotChange::Move { .. }, Some(old), Some(new)) => [self.log_must, self.log_may]
                    .map(|log| log.intersect(old.frames()).moved(old.frame.into(), new.frame.into())),
                _ => [FrameSet::EMPTY; 2],
            };
            self.forget_log(touched);
            self.log_must = self.log_must.union(kept[0]);
            self.log_may = self.log_may.union(kept[1]);
        }
        allowed.changed = allowed.changed.union(touched);
        self.slots[id.index()] = after;
        self.index_slots();
    }

    pub(super) fn index_slots(&mut self) {
        self.slot_of = [NO_SLOT; FRAMES];
        self.alias_holes = FrameSet::ALL;
        for (index, slot) in self.slots.iter().enumerate() {
            if let Some(slot) = slot {
                let start = usize::from(slot.frame);
                self.slot_of[start..start + usize::from(slot.frames)].fill(index as u8);
                if index < USER_SLOTS {
                    self.alias_holes = self.alias_holes.minus(slot.frames());
                }
            }
        }
    }
}
