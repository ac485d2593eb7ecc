//! Memslots: which memory of the host is behind a frame of the guest.

use gpa_model::{Gfn, SlotId};

/// Finds the memslot of a frame. What else there is to a memslot its owner keeps by the id.
pub(crate) trait Memslots: Default {
    /// A new slot. Slots do not overlap.
    fn insert(&mut self, id: SlotId, gfn: Gfn, pages: u64);

    /// The slot goes.
    fn remove(&mut self, id: SlotId);

    /// The slot that `gfn` lies in, and the page of it.
    fn find(&self, gfn: Gfn) -> Option<(SlotId, u64)>;
}

/// Memslots in a list, for crates that have none of their own.
#[derive(Default)]
pub(crate) struct SlotList(Vec<(SlotId, Gfn, u64)>);

impl Memslots for SlotList {
    fn insert(&mut self, id: SlotId, gfn: Gfn, pages: u64) {
        self.0.push((id, gfn, pages));
    }

    fn remove(&mut self, id: SlotId) {
        self.0.retain(|slot| slot.0 != id);
    }

    fn find(&self, gfn: Gfn) -> Option<(SlotId, u64)> {
        self.0.iter().find_map(|&(id, first, pages)| Some((id, gfn.offset_from(first).filter(|&page| page < pages)?)))
    }
}
