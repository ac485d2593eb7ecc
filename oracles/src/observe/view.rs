//! What a target's tables hold, for every frame of the window under every alias: now, and before the last op.

use gpa_model::limits::{ALIASES, FRAMES};
use gpa_model::{FrameSet, Level, Mmu, Rights, Spte, VmConfig};

type Tables = [[Option<Spte>; FRAMES]; ALIASES];

/// Two sweeps of a target's tables, and what changed between them. Alias numbers index everything.
#[derive(Debug)]
pub struct View {
    aliases: usize,
    /// Of the frames that are present; elsewhere it means nothing.
    now: Box<Tables>,
    /// Of the frames that changed; elsewhere it is as now.
    before: Box<Tables>,
    present: [FrameSet; ALIASES],
    writable: [FrameSet; ALIASES],
    changed: [FrameSet; ALIASES],
}

impl Default for View {
    fn default() -> Self {
        let empty = || Box::new([[None; FRAMES]; ALIASES]);
        let none = [FrameSet::EMPTY; ALIASES];
        Self { aliases: 1, now: empty(), before: empty(), present: none, writable: none, changed: none }
    }
}

impl View {
    /// A new VM, with nothing mapped.
    pub fn reset(&mut self, vm: &VmConfig) {
        self.aliases = vm.stolen().alias_count();
        self.present = [FrameSet::EMPTY; ALIASES];
        self.writable = self.present;
        self.changed = self.present;
    }

    /// Look at the tables again. Most of what could be mapped is not, and most of what is stays as it was.
    pub fn sweep<M: Mmu>(&mut self, vm: &VmConfig, mmu: &M) {
        for alias in 0..self.aliases {
            let (now, before) = (&mut self.now[alias], &mut self.before[alias]);
            let (was_present, mut present) = (self.present[alias], FrameSet::EMPTY);
            let (mut writable, mut changed) = (FrameSet::EMPTY, FrameSet::EMPTY);
            mmu.walk_window(vm.gpa(0, alias), vm.stride(), &mut |frame, spte| {
                let one = FrameSet::one(frame);
                present = present.union(one);
                if spte.rights().contains(Rights::W) {
                    writable = writable.union(one);
                }
                let old = now[frame].filter(|_| was_present.contains(frame));
                if old != Some(spte) {
                    changed = changed.union(one);
                    (before[frame], now[frame]) = (old, Some(spte));
                }
            });
            let lost = was_present.minus(present);
            lost.iter().for_each(|frame| before[frame] = now[frame]);
            self.present[alias] = present;
            self.writable[alias] = writable;
            self.changed[alias] = changed.union(lost);
        }
    }

    /// How many aliases each frame has.
    pub fn aliases(&self) -> usize {
        self.aliases
    }

    /// The translation of `frame` under alias number `alias`.
    pub fn now(&self, alias: usize, frame: usize) -> Option<Spte> {
        self.now[alias][frame].filter(|_| self.present[alias].contains(frame))
    }

    /// The same before the last op.
    pub fn before(&self, alias: usize, frame: usize) -> Option<Spte> {
        if self.changed[alias].contains(frame) { self.before[alias][frame] } else { self.now(alias, frame) }
    }

    /// The frames that the same leaf translated as `frame` under alias number `alias` before the last op; none if there was none.
    pub fn leaf_before(&self, vm: &VmConfig, alias: usize, frame: usize) -> FrameSet {
        self.before(alias, frame).map_or(FrameSet::EMPTY, |spte| match spte.level() {
            Level::Page4K => FrameSet::one(frame),
            level => vm.frames_of_leaf(vm.gfn(frame), level),
        })
    }

    /// Frames with a translation under `alias`.
    pub fn present(&self, alias: usize) -> FrameSet {
        self.present[alias]
    }

    /// Frames with a writable translation under `alias`.
    pub fn writable(&self, alias: usize) -> FrameSet {
        self.writable[alias]
    }

    /// Frames with a writable translation under any alias.
    pub fn writable_any(&self) -> FrameSet {
        self.writable[..self.aliases].iter().fold(FrameSet::EMPTY, |all, &set| all.union(set))
    }

    /// Frames whose translation under any alias the last op changed to a writable one.
    pub fn newly_writable(&self) -> FrameSet {
        (0..self.aliases)
            .fold(FrameSet::EMPTY, |all, alias| all.union(self.writable[alias].intersect(self.changed[alias])))
    }

    /// Whether the last op changed no translation under any alias.
    pub fn is_unchanged(&self) -> bool {
        self.changed[..self.aliases].iter().all(|set| set.is_empty())
    }

    /// Frames whose translation under `alias` the last op changed.
    pub fn changed(&self, alias: usize) -> FrameSet {
        self.changed[alias]
    }
}
