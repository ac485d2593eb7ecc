//! What a target's tables hold, for every frame of the window under every alias: now, and before the last op.

use gpa_model::limits::{ALIASES, FRAMES};
use gpa_model::{FrameSet, Level, Mmu, Rights, Spte, Vm};

type Tables = [[Option<Spte>; FRAMES]; ALIASES];

/// Two sweeps of a target's tables, and what changed between them. Alias numbers index everything.
#[derive(Debug)]
pub struct View {
    aliases: usize,
    now: Box<Tables>,
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
    pub fn reset(&mut self, vm: &Vm) {
        for alias in 0..self.aliases {
            self.now[alias].fill(None);
            self.before[alias].fill(None);
        }
        self.aliases = vm.stolen().alias_count();
        self.present = [FrameSet::EMPTY; ALIASES];
        self.writable = self.present;
        self.changed = self.present;
    }

    /// Look at the tables again.
    pub fn sweep<M: Mmu>(&mut self, vm: &Vm, mmu: &M) {
        std::mem::swap(&mut self.now, &mut self.before);
        for alias in 0..self.aliases {
            let now = &mut self.now[alias];
            mmu.walk_window(vm.gpa(0, alias), vm.stride(), now);
            // Most ops leave most aliases alone, and a comparison of whole windows is cheap.
            let difference =
                now.iter().zip(&self.before[alias]).fold(0, |bits, (now, before)| bits | (raw(*now) ^ raw(*before)));
            if difference == 0 {
                self.changed[alias] = FrameSet::EMPTY;
                continue;
            }
            let (mut present, mut writable, mut changed) = (0u64, 0u64, 0u64);
            for (frame, (now, before)) in now.iter().zip(&self.before[alias]).enumerate() {
                let now = raw(*now);
                present |= u64::from(now != 0) << frame;
                writable |= (now >> Rights::W.bits().trailing_zeros() & 1) << frame;
                changed |= u64::from(now != raw(*before)) << frame;
            }
            self.present[alias] = FrameSet::from_bits(present);
            self.writable[alias] = FrameSet::from_bits(writable);
            self.changed[alias] = FrameSet::from_bits(changed);
        }
    }

    /// How many aliases each frame has.
    pub fn aliases(&self) -> usize {
        self.aliases
    }

    /// The translation of `frame` under alias number `alias`.
    pub fn now(&self, alias: usize, frame: usize) -> Option<Spte> {
        self.now[alias][frame]
    }

    /// The same before the last op.
    pub fn before(&self, alias: usize, frame: usize) -> Option<Spte> {
        self.before[alias][frame]
    }

    /// The frames that the same leaf translated as `frame` under alias number `alias` before the last op; none if there was none.
    pub fn leaf_before(&self, vm: &Vm, alias: usize, frame: usize) -> FrameSet {
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

    /// Frames whose translation under `alias` the last op changed.
    pub fn changed(&self, alias: usize) -> FrameSet {
        self.changed[alias]
    }
}

#[inline]
fn raw(spte: Option<Spte>) -> u64 {
    spte.map_or(0, Spte::raw)
}
