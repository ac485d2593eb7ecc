//! The host's side of stress: what it does to pages and memslots while vCPUs run.

use super::report::StressReport;
use super::{FRAMES_AT, PAGES};
use crate::error::{Doing, MachineError};
use crate::guest::page;
use crate::guest::spinner::{self, HOLE};
use crate::host::memory::Pages;
use crate::host::reclaim::{ReclaimTable, Reclaimed, keeps_pages};
use crate::kvm::memslots::{Backing, Memslots};
use gpa_model::limits::VCPUS;
use gpa_model::{FrameSet, HostPage, Pfn, Reclaim, SlotChange, SlotFlags, SlotId, VmConfig};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Where the second memslot moves to.
const AWAY: usize = 52;
/// How long the guests write between two looks at what they publish.
pub(super) const PAUSE: Duration = Duration::from_micros(200);
/// The first identity of page 0. Consecutive identities of a page differ by the number of pages.
const FIRST_IDENTITY: u32 = 1000;
const LOGGED: SlotFlags = SlotFlags { readonly: false, log_dirty: true };

/// What the host does in one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Reclaim a page.
    Unmap(Reclaim),
    /// Clear the dirty log, and check that it has what is written after that.
    Harvest,
    /// Delete a memslot and create it again.
    Recreate,
    /// Move a memslot away and back.
    Move,
    /// Switch logging off and on.
    Relog,
}

impl Round {
    fn name(self) -> &'static str {
        match self {
            Self::Unmap(reclaim) => reclaim.name(),
            Self::Harvest => "harvest",
            Self::Recreate => "recreate",
            Self::Move => "move",
            Self::Relog => "relog",
        }
    }
}

/// The host's side, while vCPUs run.
pub(super) struct Stage<'a> {
    pub(super) kvm: Backing<'a>,
    vm: &'a VmConfig,
    vcpus: usize,
    pub(super) own: &'a Pages,
    memslots: &'a mut Memslots,
    reclaims: &'a mut ReclaimTable,
    /// The identity of each page.
    identities: [u32; PAGES],
    /// Rounds so far.
    turn: usize,
    pub(super) report: StressReport,
}

impl<'a> Stage<'a> {
    /// Creates the memslots and gives every page its identity.
    pub(super) fn set(
        kvm: Backing<'a>,
        vcpus: usize,
        own: &'a Pages,
        memslots: &'a mut Memslots,
        reclaims: &'a mut ReclaimTable,
    ) -> Result<Self, MachineError> {
        let identities = std::array::from_fn(|page| FIRST_IDENTITY + page as u32);
        let (turn, report) = (0, StressReport::default());
        let mut stage = Self { kvm, vm: kvm.vm, vcpus, own, memslots, reclaims, identities, turn, report };
        (0..FRAMES_AT.len()).try_for_each(|slot| stage.create(slot))?;
        for page in 0..PAGES {
            stage.rename(page);
            stage.floor_of_page(page, stage.identities[page]);
        }
        Ok(stage)
    }

    /// Plays round after round until `end`, or until a vCPU has failed.
    pub(super) fn play(&mut self, end: Instant, failed: &AtomicBool) -> Result<(), MachineError> {
        let mut rounds = Vec::new();
        for reclaim in self.reclaims.available().iter() {
            rounds.extend([Round::Unmap(reclaim), Round::Harvest]);
        }
        rounds.extend([Round::Recreate, Round::Harvest, Round::Move, Round::Harvest, Round::Relog, Round::Harvest]);
        let mut counts = vec![0; rounds.len()];
        while Instant::now() < end && !failed.load(Ordering::Relaxed) {
            let at = self.turn % rounds.len();
            // Another page and another memslot each time the list repeats.
            self.round(rounds[at], self.turn / rounds.len())?;
            counts[at] += 1;
            self.turn += 1;
        }
        for (round, count) in rounds.into_iter().zip(counts) {
            match self.report.rounds.iter_mut().find(|(name, _)| *name == round.name()) {
                Some((_, sum)) => *sum += count,
                None => self.report.rounds.push((round.name(), count)),
            }
        }
        Ok(())
    }

    fn round(&mut self, round: Round, turn: usize) -> Result<(), MachineError> {
        let slot = turn % FRAMES_AT.len();
        match round {
            Round::Unmap(reclaim) => self.unmap(reclaim, turn % PAGES),
            Round::Harvest => self.harvest(slot),
            Round::Recreate => self.absent(slot, SlotChange::Delete, None),
            Round::Move => {
                let [_, home] = FRAMES_AT;
                let to = |frame| SlotChange::Move { gfn: self.vm.gfn(frame) };
                self.absent(1, to(AWAY), Some(to(home)))
            }
            Round::Relog => {
                self.change(slot, SlotChange::Flags(SlotFlags::default()))?;
                self.change(slot, SlotChange::Flags(LOGGED))
            }
        }
    }

    /// Reclaims a page. If that keeps its content, reads and writes are checked throughout.
    fn unmap(&mut self, reclaim: Reclaim, page: usize) -> Result<(), MachineError> {
        let keeps = keeps_pages(reclaim, self.kvm.memory);
        if !keeps {
            self.floor_of_page(page, 0);
        }
        let reclaimed = self.reclaims.unmap(Some(reclaim), self.kvm.memory, page, 1).doing("take a host page away")?;
        if !keeps && reclaimed == Reclaimed::Done {
            self.rename(page);
        }
        self.floor_of_page(page, self.identities[page]);
        Ok(())
    }

    /// Takes a memslot away and brings it back. In between there is a hole.
    fn absent(&mut self, slot: usize, away: SlotChange, back: Option<SlotChange>) -> Result<(), MachineError> {
        self.floor_of_slot(slot, 0);
        self.change(slot, away)?;
        self.floor_of_slot(slot, HOLE);
        thread::sleep(PAUSE);
        self.floor_of_slot(slot, 0);
        match back {
            Some(change) => self.change(slot, change)?,
            None => self.create(slot)?,
        }
        // Each floor is new: to a guest that was preempted meanwhile, an old floor would look unchanged.
        for page in 0..PAGES {
            self.floor_of_page(page, 0);
            self.rename(page);
            self.floor_of_page(page, self.identities[page]);
        }
        Ok(())
    }

    /// Clears the dirty log and checks it later. A frame for which a vCPU published two numbers since then has
    /// been written since then: the second write began after the first was published.
    fn harvest(&mut self, slot: usize) -> Result<(), MachineError> {
        let kvm = self.kvm;
        let (id, first) = (SlotId::user(slot as u8), FRAMES_AT[slot]);
        self.memslots.clear_dirty(kvm, id, self.vm.gfn(first), PAGES as u32)?;
        let looks = [0; 3].map(|_| {
            let look = self.published(first);
            thread::sleep(PAUSE);
            look
        });
        let dirty = self.memslots.dirty(kvm, id)?;
        self.judge_log(first, &looks, dirty);
        Ok(())
    }

    /// Checks that `dirty` has each frame with two changes of its published number in `looks`.
    pub(super) fn judge_log(&mut self, first: usize, looks: &[[[u64; PAGES]; VCPUS]; 3], dirty: FrameSet) {
        for frame in first..first + PAGES {
            let number = |look: usize, vcpu: usize| looks[look][vcpu][frame - first];
            let twice = |vcpu| number(0, vcpu) != number(1, vcpu) && number(1, vcpu) != number(2, vcpu);
            if (0..self.vcpus).any(twice) {
                self.report.harvested += 1;
                if !dirty.contains(frame) {
                    self.report.find(format!("gfn {} was written and is not in the log", self.vm.gfn(frame)));
                }
            }
        }
    }

    pub(super) fn published(&self, first: usize) -> [[u64; PAGES]; VCPUS] {
        std::array::from_fn(|vcpu| std::array::from_fn(|page| spinner::published(self.own, vcpu, first + page)))
    }

    fn create(&mut self, slot: usize) -> Result<(), MachineError> {
        let gfn = self.vm.gfn(FRAMES_AT[slot]);
        self.change(slot, SlotChange::Create { gfn, pages: PAGES as u32, hva: HostPage::new(0), flags: LOGGED })
    }

    fn change(&mut self, slot: usize, change: SlotChange) -> Result<(), MachineError> {
        self.memslots.change(self.kvm, SlotId::user(slot as u8), change)
    }

    pub(super) fn floor_of_page(&self, page: usize, floor: u32) {
        FRAMES_AT.iter().for_each(|at| spinner::set_floor(self.own, at + page, floor));
    }

    fn floor_of_slot(&self, slot: usize, floor: u32) {
        (0..PAGES).for_each(|page| spinner::set_floor(self.own, FRAMES_AT[slot] + page, floor));
    }

    /// Gives a page an identity that no page has had.
    fn rename(&mut self, page: usize) {
        self.identities[page] += PAGES as u32;
        page::stamp(self.kvm.memory, page, Pfn::new(self.identities[page]));
    }
}
