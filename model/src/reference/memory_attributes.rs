//! What divides the frames of a VM, so that no leaf may translate frames on both sides: memory types, and whether a frame is
//! private.

use crate::frame_set::FrameSet;
use crate::program::MemoryType;

/// What is said of frames, whether or not a memslot is there. It is said of gfns: an alias of a frame is no different.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MemoryAttributes {
    uncacheable: FrameSet,
    private: FrameSet,
    /// Frames that are becoming private or shared right now.
    changing: Option<(FrameSet, bool)>,
}

impl MemoryAttributes {
    /// The frames that are not write-back.
    pub const fn uncacheable(&self) -> FrameSet {
        self.uncacheable
    }

    /// The frames that are private (`KVM_MEMORY_ATTRIBUTE_PRIVATE`).
    pub const fn private(&self) -> FrameSet {
        self.private
    }

    /// The frames whose attributes are changing.
    pub fn changing(&self) -> FrameSet {
        self.changing.map_or(FrameSet::EMPTY, |(frames, _)| frames)
    }

    /// The frames that are becoming private or shared, and are not yet.
    pub fn converting(&self) -> FrameSet {
        match self.changing {
            Some((frames, true)) => frames.minus(self.private),
            Some((frames, false)) => frames.intersect(self.private),
            None => FrameSet::EMPTY,
        }
    }

    /// Whether a change of attributes has begun and not ended.
    pub const fn is_changing(&self) -> bool {
        self.changing.is_some()
    }

    pub(crate) fn begin_attributes(&mut self, frames: FrameSet, private: bool) {
        self.changing = Some((frames, private));
    }

    /// Returns the frames that have changed.
    pub(crate) fn end_attributes(&mut self) -> FrameSet {
        let Some((frames, private)) = self.changing.take() else { return FrameSet::EMPTY };
        self.private = if private { self.private.union(frames) } else { self.private.minus(frames) };
        frames
    }

    pub(crate) fn set_memory_type(&mut self, frames: FrameSet, memory: MemoryType) {
        self.uncacheable = match memory {
            MemoryType::WriteBack => self.uncacheable.minus(frames),
            MemoryType::Uncacheable => self.uncacheable.union(frames),
        };
    }
}
