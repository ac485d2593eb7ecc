//! Memslots as user space names and changes them.

use crate::addr::{Gfn, HostPage};
use crate::limits::{INTERNAL_SLOTS, SLOTS, USER_SLOTS};
use std::fmt;

/// A memslot id. Ids at and above [`USER_SLOTS`] are private: the hypervisor's own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct SlotId(u8);

impl SlotId {
    /// The id `raw`, or `None` if there are not so many.
    pub fn new(raw: u8) -> Option<Self> {
        (usize::from(raw) < SLOTS).then_some(Self(raw))
    }

    /// User slot `n`, modulo their number.
    pub const fn user(n: u8) -> Self {
        Self(n % USER_SLOTS as u8)
    }

    /// Private slot `n`, modulo their number.
    pub const fn internal(n: u8) -> Self {
        Self(USER_SLOTS as u8 + n % INTERNAL_SLOTS as u8)
    }

    /// The id as an index below [`SLOTS`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Whether the id is at or above `KVM_USER_MEM_SLOTS`.
    pub const fn is_internal(self) -> bool {
        self.index() >= USER_SLOTS
    }
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_internal() { write!(f, "p{}", self.0 - USER_SLOTS as u8) } else { write!(f, "{}", self.0) }
    }
}

/// Flags of a memslot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct SlotFlags {
    /// `KVM_MEM_READONLY`: a guest write exits to user space.
    pub readonly: bool,
    /// `KVM_MEM_LOG_DIRTY_PAGES`.
    pub log_dirty: bool,
}

/// A change to one memslot, as `KVM_SET_USER_MEMORY_REGION` makes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum SlotChange {
    /// A new slot.
    Create {
        /// First guest frame.
        gfn: Gfn,
        /// Number of pages, at least 1.
        pages: u32,
        /// First host page behind it.
        hva: HostPage,
        /// Its flags.
        flags: SlotFlags,
    },
    /// Remove the slot.
    Delete,
    /// The same host pages at another gfn.
    Move {
        /// New first guest frame.
        gfn: Gfn,
    },
    /// The same slot with other flags. To change `readonly` KVM's user space has to delete and create, so the slot goes
    /// through an INVALID window; `log_dirty` alone does not.
    Flags(SlotFlags),
}
