//! A sketch of where a program has led to: enough to draw ops that mean something.

use crate::addr::HostPage;
use crate::explore::choices::Choices;
use crate::frame_set::FrameSet;
use crate::limits::{FRAMES, GPTES, GUEST_LEVELS, NOTIFIER_WINDOWS, SLOTS, VCPUS};
use crate::program::{Gva, Op, SlotChange, SlotFlags, SlotId, VmConfig};

/// What the ops so far have probably left behind: enough to draw ops that mean something, no promise that they do.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExpectedState {
    pub(super) slots: [Option<ExpectedSlot>; SLOTS],
    pub(super) slot_pending: bool,
    pub(super) attributes_pending: bool,
    pub(super) zap_pending: bool,
    pub(super) windows: [bool; NOTIFIER_WINDOWS],
    pub(super) faults: [bool; VCPUS],
    pub(super) private: FrameSet,
    /// Where the entries of the guest's page tables lead: a frame plus 1, 0 for none.
    gptes: [[u8; GPTES]; FRAMES],
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ExpectedSlot {
    pub(super) frame: u8,
    pub(super) frames: u8,
    /// Number of its first host block.
    pub(super) hva: u8,
    pub(super) flags: SlotFlags,
}

impl ExpectedSlot {
    pub(super) fn holds(&self, frame: usize) -> bool {
        (self.frame..self.frame + self.frames).contains(&(frame as u8))
    }
}

impl Default for ExpectedState {
    fn default() -> Self {
        Self {
            slots: [None; SLOTS],
            slot_pending: false,
            attributes_pending: false,
            zap_pending: false,
            windows: [false; NOTIFIER_WINDOWS],
            faults: [false; VCPUS],
            private: FrameSet::EMPTY,
            gptes: [[0; GPTES]; FRAMES],
        }
    }
}

impl ExpectedState {
    pub(super) fn of(vm: &VmConfig, ops: &[Op]) -> Self {
        let mut sketch = Self::default();
        for op in ops {
            sketch.note(vm, op);
        }
        sketch
    }

    pub(super) fn note(&mut self, vm: &VmConfig, op: &Op) {
        match *op {
            Op::Slot { id, change } => self.change(vm, id, change),
            Op::SlotBegin { id, change } => {
                self.change(vm, id, change);
                self.slot_pending = true;
            }
            Op::SlotEnd => self.slot_pending = false,
            Op::Attributes { gfn, pages, private } => self.convert(vm.frames(gfn, pages.into()), private),
            Op::AttributesBegin { gfn, pages, private } => {
                self.convert(vm.frames(gfn, pages.into()), private);
                self.attributes_pending = true;
            }
            Op::AttributesEnd => self.attributes_pending = false,
            Op::ZapBegin { .. } => self.zap_pending = true,
            Op::ZapEnd => self.zap_pending = false,
            Op::FaultBegin { vcpu, .. } => self.faults[usize::from(vcpu)] = true,
            Op::FaultEnd { vcpu } => self.faults[usize::from(vcpu)] = false,
            Op::UnmapBegin { window, .. } => self.windows[usize::from(window)] = true,
            Op::UnmapEnd { window } => self.windows[usize::from(window)] = false,
            Op::WriteGpte { gpa, index, gpte, .. } => {
                if let (Some((table, _)), Some((to, _))) = (vm.locate(gpa), vm.locate(gpte.gpa())) {
                    self.gptes[table][usize::from(index)] = to as u8 + 1;
                }
            }
            _ => {}
        }
    }

    fn convert(&mut self, frames: FrameSet, private: bool) {
        self.private = if private { self.private.union(frames) } else { self.private.minus(frames) };
    }

    /// A frame that was written to as a page table, if there is one.
    pub(super) fn any_table(&self, choices: &mut impl Choices) -> Option<usize> {
        let start = choices.below(FRAMES as u32) as usize;
        (0..FRAMES).map(|i| (start + i) % FRAMES).find(|&frame| self.gptes[frame] != [0; GPTES])
    }

    /// A frame that is in no memslot, if there is one.
    pub(super) fn any_hole(&self, choices: &mut impl Choices) -> usize {
        let start = choices.below(FRAMES as u32) as usize;
        let is_hole = |frame: &usize| !self.slots.iter().flatten().any(|slot| slot.holds(*frame));
        (0..FRAMES).map(|i| (start + i) % FRAMES).find(is_hole).unwrap_or(start)
    }

    /// The page behind a frame, if there is a memslot.
    pub(super) fn hva_of(&self, vm: &VmConfig, frame: usize) -> Option<HostPage> {
        let mut slots = self.slots.iter().flatten();
        slots.find_map(|slot| {
            let page = frame.checked_sub(slot.frame.into()).filter(|page| *page < slot.frames.into())?;
            Some(vm.hva(usize::from(slot.hva) + page))
        })
    }

    /// The table of `level` on the way of `gva` from the one in frame `root`.
    pub(super) fn table_at(&self, vm: &VmConfig, root: usize, gva: Gva, level: u8) -> Option<usize> {
        (level + 1..=vm.paging().levels())
            .rev()
            .try_fold(root, |table, above| usize::from(self.gptes[table][usize::from(gva.index(above))]).checked_sub(1))
    }

    /// A page that the tables from `root` may translate: at each level an entry that was written, as far as there is one.
    pub(super) fn any_gva(&self, choices: &mut impl Choices, root: usize, levels: u8) -> Gva {
        let mut indices = [0; GUEST_LEVELS];
        let indices = &mut indices[..usize::from(levels)];
        let mut table = root;
        for index in indices.iter_mut() {
            let start = choices.below(GPTES as u32) as usize;
            let written = (0..GPTES).map(|i| (start + i) % GPTES).find(|&i| self.gptes[table][i] != 0);
            *index = written.unwrap_or(start) as u8;
            table = written.map_or(table, |i| usize::from(self.gptes[table][i]) - 1);
        }
        Gva::new(indices)
    }

    fn change(&mut self, vm: &VmConfig, id: SlotId, change: SlotChange) {
        let slot = &mut self.slots[id.index()];
        match change {
            SlotChange::Create { gfn, pages, hva, flags } => {
                let (frames, hva) = (vm.frames_in(pages.into()) as u8, vm.hva_index(hva) as u8);
                *slot = vm.frame(gfn).map(|frame| ExpectedSlot { frame: frame as u8, frames, hva, flags });
            }
            SlotChange::Delete => *slot = None,
            SlotChange::Move { gfn } => {
                // A move that leaves the window is skipped; believed, it would lead to ops outside of it.
                if let (Some(slot), Some(frame)) = (slot, vm.frame(gfn))
                    && frame + usize::from(slot.frames) <= FRAMES
                {
                    slot.frame = frame as u8;
                }
            }
            SlotChange::Flags(flags) => {
                if let Some(slot) = slot {
                    slot.flags = flags;
                }
            }
        }
    }

    pub(super) fn any_slot(
        &self,
        choices: &mut impl Choices,
        wanted: impl Fn(SlotId, &ExpectedSlot) -> bool,
    ) -> Option<(SlotId, ExpectedSlot)> {
        let start = choices.below(SLOTS as u32) as usize;
        (0..SLOTS).map(|i| (start + i) % SLOTS).find_map(|i| {
            let id = SlotId::new(i as u8)?;
            self.slots[i].filter(|slot| wanted(id, slot)).map(|slot| (id, slot))
        })
    }

    /// A frame of a memslot, if there is one.
    pub(super) fn any_slot_frame(&self, choices: &mut impl Choices) -> Option<usize> {
        let (_, slot) = self.any_slot(choices, |_, _| true)?;
        Some(usize::from(slot.frame) + choices.below(u32::from(slot.frames)) as usize)
    }

    pub(super) fn free_id(&self, choices: &mut impl Choices, private: bool) -> SlotId {
        let n = choices.below(8) as u8;
        if private { SlotId::internal(n) } else { SlotId::user(n % 4) }
    }
}
