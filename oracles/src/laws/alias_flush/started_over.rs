//! A flush that Linux's older MMU forgets, told from every other one: what the walk that forgets it leaves behind has a certain shape.
//!
//! `__walk_slot_rmaps()` goes through a range of gfns once for each size of leaf, the smallest first. Where it gives way to others it
//! flushes from the start of the range to where it is. Among larger leaves it has started over, so smaller ones that it has zapped
//! further up outlive that flush, and it takes them for flushed.

use super::Stale;
use crate::observe::Step;
use gpa_model::limits::SLOTS;
use gpa_model::{Flush, FrameSet, Gpa, Level, SlotId};

/// Whether such a walk explains why `stale` was left: the op took it away, and a flush of its name began where a walk over it begins
/// and ended below it, with the first page of a larger leaf.
pub(super) fn explains(step: &Step<'_>, stale: &Stale) -> bool {
    let (vm, frame, alias) = (step.model.vm(), usize::from(stale.frame), stale.alias.into());
    let larger = match stale.spte.level() {
        Level::Page4K => Level::Page2M,
        Level::Page2M => Level::Page1G,
        Level::Page1G => return false,
    };
    let starts = starts_of_walk(step, frame).map(|start| start.map(|start| vm.gpa(start, alias)));
    let falls_short = |(gpa, pages): (Gpa, u64)| {
        starts.contains(&Some(gpa)) && pages % larger.pages() == 1 && gpa.page() + pages <= vm.gpa(frame, alias).page()
    };
    stale.since == step.at && ranges(step).any(falls_short)
}

/// Whether it could: what the op took away it flushed by ranges.
pub(super) fn could_explain(step: &Step<'_>, stale: &Stale) -> bool {
    stale.since == step.at && ranges(step).next().is_some()
}

fn ranges(step: &Step<'_>) -> impl Iterator<Item = (Gpa, u64)> {
    step.flushes.iter().filter_map(|flush| match *flush {
        Flush::Range { gpa, pages, ok: true } => Some((gpa, pages)),
        _ => None,
    })
}

/// Where a walk over `frame` may begin, which goes through one memslot: at the first frame of the op's range in it, or at that of the
/// memslot, where the host takes more into account than the op says.
fn starts_of_walk(step: &Step<'_>, frame: usize) -> [Option<usize>; 2] {
    let changed = step.allowed.changed;
    let mut slots = (0..SLOTS as u8).filter_map(SlotId::new).map(|id| step.model.slot_frames(id));
    let slot = slots.find(|frames| frames.contains(frame)).unwrap_or(changed);
    let first = |range: FrameSet| (0..=frame).rev().take_while(|&frame| range.contains(frame)).last();
    let of_op = first(slot.intersect(changed));
    [of_op, of_op.and(first(slot))]
}
