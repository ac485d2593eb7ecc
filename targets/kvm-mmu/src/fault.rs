//! The fault path, in KVM's order: unalias, fast path, memslot, page; then, under the `mmu_lock`, the staleness check,
//! the mapping and the prefetch of neighbours.

use gpa_model::{Access, Alias, Exit, Gfn, Gpa, HostPage, Level, Pfn, Rights};

pub(crate) mod async_pf;
pub(crate) mod fast;
pub(crate) mod kind;
pub(crate) mod look_up;
pub(crate) mod map;
pub(crate) mod mmio;
pub(crate) mod nx_huge_page;
pub(crate) mod prefetch;
pub(crate) mod unsync;
pub(crate) mod vcpu;

/// A fault whose page is known and that waits for the `mmu_lock`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageFault {
    pub(crate) vcpu: u8,
    pub(crate) gpa: Gpa,
    pub(crate) access: Access,
    pub(crate) gfn: Gfn,
    pub(crate) alias: Alias,
    pub(crate) hva: HostPage,
    pub(crate) pfn: Pfn,
    /// The size of the host mapping when the page was looked up.
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

    /// The page behind the address.
    pub(crate) const fn pfn(&self) -> Pfn {
        self.pfn
    }
}

/// The outcome of a fault before the `mmu_lock`.
#[derive(Debug)]
pub(crate) enum FaultIn {
    /// A fast page fault resolved it.
    Fixed,
    /// There is no memslot. An MMIO entry may remember that.
    NoSlot,
    /// User space has to emulate the access.
    Emulate,
    /// The write is tracked; it was emulated on this page.
    Write(Pfn),
    /// The page has to be read in, and the vCPU does not sleep for it. The access ends in this exit.
    Async(Exit),
    /// The page cannot be had.
    Error,
    /// The gfn has memory of the other kind, private or shared (`kvm_mmu_prepare_memory_fault_exit()`).
    MemoryFault,
    /// The fault has to start again.
    Retry,
    /// The page is known; the fault continues under the `mmu_lock`.
    Map(PageFault),
}

/// The outcome of a fault (`RET_PF_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Resolved {
    Fixed,
    /// The write is tracked; it was emulated.
    Write,
    Retry,
}

/// How a fault waits for a page that has to be read in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    /// It does not: the guest gets an async page fault, where that is possible.
    Async,
    /// It sleeps until the page is read in.
    Sleep,
}
