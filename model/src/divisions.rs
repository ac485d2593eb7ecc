//! What divides the frames of a VM, so that no leaf may translate frames on both sides: memory types.

use crate::vm::FrameSet;

/// How the processor may cache a page: the guest's MTRRs, reduced to what a leaf must not mix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MemoryType {
    /// Ordinary memory, and what every page is at first.
    #[default]
    WriteBack,
    /// Not at all.
    Uncacheable,
}

impl MemoryType {
    /// All of them.
    pub const ALL: [MemoryType; 2] = [MemoryType::WriteBack, MemoryType::Uncacheable];

    /// The word for it in the text format.
    pub const fn name(self) -> &'static str {
        match self {
            MemoryType::WriteBack => "write-back",
            MemoryType::Uncacheable => "uncacheable",
        }
    }
}

/// What is said of frames, whether or not a memslot is there. It is said of gfns: an alias of a frame is no different.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Divisions {
    uncacheable: FrameSet,
}

impl Divisions {
    /// The frames that are not write-back.
    pub const fn uncacheable(&self) -> FrameSet {
        self.uncacheable
    }

    pub(crate) fn set_memory_type(&mut self, frames: FrameSet, memory: MemoryType) {
        self.uncacheable = match memory {
            MemoryType::WriteBack => self.uncacheable.minus(frames),
            MemoryType::Uncacheable => self.uncacheable.union(frames),
        };
    }
}

/// Whether some of the frames of a leaf are in `set` and some are not.
pub fn divides(set: FrameSet, leaf: FrameSet) -> bool {
    let inside = leaf.intersect(set);
    !inside.is_empty() && inside != leaf
}
