//! The fault path, in KVM's order: unalias, fast path, memslot, page, then under the lock the staleness check, the mapping and the
//! prefetch of neighbours.

use gpa_model::{Access, Alias, Exit, Gfn, Gpa, HostPage, Level, Pfn, Rights};

pub(crate) mod async_pf;
pub(crate) mod fast;
pub(crate) mod look_up;
pub(crate) mod map;
pub(crate) mod mmio;
pub(crate) mod nx_huge_page;
pub(crate) mod prefetch;
pub(crate) mod unsync;
pub(crate) mod vcpu;

/// A fault whose page has been looked up and that waits for the lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageFault {
    pub(crate) vcpu: u8,
    pub(crate) gpa: Gpa,
    pub(crate) access: Access,
    pub(crate) gfn: Gfn,
    pub(crate) alias: Alias,
    pub(crate) hva: HostPage,
    pub(crate) pfn: Pfn,
    /// How large a host mapping the page was part of when it was looked up.
    pub(crate) host_level: Level,
    pub(crate) rights: Rights,
    pub(crate) host_writable: bool,
    pub(crate) mmu_seq: u64,
    pub(crate) slots_generation: u64,
}

impl PageFault {
    /// The faulting address.
    pub(crate) const fn gpa(&self) -> Gpa {
        self.gpa
    }

    /// The page behind it.
    pub(crate) const fn pfn(&self) -> Pfn {
        self.pfn
    }
}

/// How far a fault got without the lock.
#[derive(Debug)]
pub(crate) enum FaultIn {
    /// A fast page fault did it.
    Fixed,
    /// There is no memory for the guest here; that can be remembered.
    NoSlot,
    /// User space has to emulate the access.
    Emulate,
    /// The write is tracked, and was emulated on this page.
    Write(Pfn),
    /// The page has to be read in, and the vCPU does not sleep for it: this is what the guest sees.
    Async(Exit),
    /// Nobody can have the page.
    Error,
    /// Start again.
    Retry,
    /// The page is known; go on under the lock.
    Map(PageFault),
}

/// How a fault ended (`RET_PF_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Resolved {
    Fixed,
    /// The write is tracked, and was emulated.
    Write,
    Retry,
}

/// How a fault waits for a page that has to be read in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    /// The guest is told, if it can be.
    Async,
    /// Asleep, until the page is there.
    Sleep,
}
