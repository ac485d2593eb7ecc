//! The dirty ring of a vCPU: the pages that it made dirty, in order (`struct kvm_dirty_ring`).

use gpa_model::SlotId;
use gpa_model::limits::DIRTY_RING_RESERVED;

/// A page that a vCPU made dirty (`struct kvm_dirty_gfn`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirtyGfn {
    /// The memslot. It may have been deleted or replaced since.
    pub slot: SlotId,
    /// The page in the memslot.
    pub offset: u64,
}

/// The ring of one vCPU. Positions only grow; an entry's place is its position modulo the ring's size.
#[derive(Debug, Default)]
pub(crate) struct DirtyRing {
    /// The entries. The vector grows to the size that the VM asks for.
    entries: Vec<DirtyGfn>,
    /// The position of the next entry.
    pub(crate) dirty: u64,
    /// The position up to which user space has harvested.
    pub(crate) harvested: u64,
    /// The position up to which entries have been reset.
    pub(crate) reset: u64,
}

impl DirtyRing {
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        (self.dirty, self.harvested, self.reset) = (0, 0, 0);
    }

    /// `kvm_dirty_ring_push()`.
    pub(crate) fn push(&mut self, size: u8, entry: DirtyGfn) {
        let at = (self.dirty % u64::from(size)) as usize;
        match self.entries.get_mut(at) {
            Some(old) => *old = entry,
            None => self.entries.push(entry),
        }
        self.dirty += 1;
    }

    /// Whether one more entry into the guest could overrun the ring (`kvm_dirty_ring_soft_full()`).
    pub(crate) fn is_full(&self, size: u8) -> bool {
        self.dirty - self.reset + u64::from(DIRTY_RING_RESERVED) > u64::from(size)
    }

    pub(crate) fn between(&self, from: u64, to: u64) -> impl Iterator<Item = DirtyGfn> {
        let len = self.entries.len().max(1) as u64;
        (from..to).filter_map(move |position| self.entries.get((position % len) as usize).copied())
    }

    /// The entries that have not been harvested.
    pub(crate) fn pending(&self) -> impl Iterator<Item = DirtyGfn> {
        self.between(self.harvested, self.dirty)
    }
}
