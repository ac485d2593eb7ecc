//! The access that each vCPU is about to make, and how far it is.

use crate::single::Single;
use std::collections::BTreeMap;

/// What a guest access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A data read.
    Read,
    /// A data write.
    Write,
    /// An instruction fetch.
    Execute,
    /// A locked compare and exchange, which writes `value` where it finds 0.
    CompareExchange,
    /// A move to CR3 of `value`; `address` means nothing.
    LoadRoot,
    /// INVLPG of `address`.
    InvalidatePage,
}

/// One access of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// A guest physical address; a linear one if `linear`, and always where KVM shadows the guest's tables.
    pub address: u64,
    /// Whether the guest's own tables translate `address`, though the processor walks nested ones.
    pub linear: bool,
    /// What it does.
    pub kind: Kind,
    /// What it writes.
    pub value: u64,
    /// How many bytes: 1, 2, 4; in long mode also 8. It lies in one page.
    pub size: u8,
}

/// How far an access is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It was not tried yet.
    Waiting,
    /// It was tried; the instruction is at this address.
    Tried { rip: u64 },
    /// It reached memory at this physical address.
    Done { physical: u64, from_tlb: bool },
    /// KVM carried the instruction out.
    Emulated,
    /// The guest is told of a fault of its own, with this error code.
    Faulted { code: u32 },
}

/// What a vCPU is about to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guest {
    /// The access.
    pub(crate) access: Access,
    /// How far it is.
    pub(crate) progress: Progress,
    /// What was read.
    pub(crate) value: u64,
    /// Faults so far.
    pub(crate) faults: u32,
}

/// By the number of the vCPU.
static GUESTS: Single<BTreeMap<u32, Guest>> = Single::new(BTreeMap::new());

/// vCPU `vcpu` makes `access` next.
pub(crate) fn prepare(vcpu: u32, access: Access) {
    GUESTS.borrow().insert(vcpu, Guest { access, progress: Progress::Waiting, value: 0, faults: 0 });
}

/// How far vCPU `vcpu` is.
pub(crate) fn progress(vcpu: u32) -> Option<Guest> {
    GUESTS.borrow().get(&vcpu).copied()
}

/// Change how far it is.
pub(crate) fn update(vcpu: u32, guest: Guest) {
    GUESTS.borrow().insert(vcpu, guest);
}

/// vCPU `vcpu` gives its access up.
pub(crate) fn abandon(vcpu: u32) {
    GUESTS.borrow().remove(&vcpu);
}

/// No vCPU is about to do anything.
pub(crate) fn forget() {
    GUESTS.borrow().clear();
}
