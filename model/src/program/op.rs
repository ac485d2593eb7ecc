//! The alphabet: everything a program can do to a VM, to its memslots and to the host memory behind them.

use super::{Access, BackendMode, Gpte, Gva, HostPageRange, MemoryType, OpKind, Reclaim, SlotChange, SlotId};
use crate::addr::{Gfn, Gpa, HostPage};

/// One operation. Operations that take time come whole, or as a begin and an end between which others can fall.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// A complete memslot change.
    Slot {
        /// Which slot.
        id: SlotId,
        /// What happens to it.
        change: SlotChange,
    },
    /// User space asks for a memslot at a frame number that carries stolen bits. There is no such frame; it must be refused.
    SlotAliased {
        /// Which slot.
        id: SlotId,
        /// Where it would begin, with an alias.
        gpa: Gpa,
        /// Number of pages, at least 1.
        pages: u32,
        /// First host page behind it.
        hva: HostPage,
    },
    /// The first half: the old slot becomes INVALID (delete, move, read-only) and what maps it is zapped, or the new
    /// flags are visible but existing SPTEs are not write-protected yet (dirty logging).
    SlotBegin {
        /// Which slot.
        id: SlotId,
        /// What happens to it.
        change: SlotChange,
    },
    /// The second half of the change in progress.
    SlotEnd,
    /// A guest access, with whatever faults it needs.
    Access {
        /// The vCPU.
        vcpu: u8,
        /// The address, with any alias.
        gpa: Gpa,
        /// Read, write or execute.
        access: Access,
    },
    /// A guest access whose fault stops after the page was looked up and before it is mapped.
    FaultBegin {
        /// The vCPU, which can do nothing else until the fault ends.
        vcpu: u8,
        /// The address, with any alias.
        gpa: Gpa,
        /// Read, write or execute.
        access: Access,
    },
    /// User space asks for a page to be mapped before the guest needs it (`KVM_PRE_FAULT_MEMORY`).
    Prefault {
        /// The vCPU.
        vcpu: u8,
        /// The address, with any alias.
        gpa: Gpa,
    },
    /// The rest of that fault: the staleness check under the lock, and the mapping.
    FaultEnd {
        /// The vCPU.
        vcpu: u8,
    },
    /// The host replaces pages (`MADV_DONTNEED`, swap, migration): a whole MMU-notifier invalidation.
    Unmap {
        /// Which pages.
        range: HostPageRange,
        /// By what means, where that can be chosen and matters to anybody.
        by: Option<Reclaim>,
    },
    /// `invalidate_range_start`: from here on nothing may map the pages.
    UnmapBegin {
        /// Which of the invalidations that may be in progress at once.
        window: u8,
        /// Which pages.
        range: HostPageRange,
    },
    /// `invalidate_range_end`: the pages have been replaced.
    UnmapEnd {
        /// Which invalidation.
        window: u8,
    },
    /// The host replaces pages by as few and as large ones as fit (khugepaged, `MADV_COLLAPSE`): an invalidation as well.
    Collapse {
        /// Which pages; a whole huge page is among them.
        range: HostPageRange,
    },
    /// The host writes pages to swap: an invalidation, after which they hold what they held, but whoever needs one has to wait until
    /// it was read in.
    PageOut {
        /// Which pages.
        range: HostPageRange,
    },
    /// Pages have been read in; what vCPUs left to be done about them is done (`async_pf_execute()`).
    PageIn {
        /// Which pages.
        range: HostPageRange,
    },
    /// The host takes pages away and puts none in their place (`mprotect(PROT_NONE)`, a memory failure): an invalidation, after which
    /// nobody can have them, until they are replaced.
    ProtNone {
        /// Which pages.
        range: HostPageRange,
    },
    /// Test and clear the accessed bits of host pages (`clear_young`).
    Age {
        /// Which pages.
        range: HostPageRange,
    },
    /// `KVM_GET_DIRTY_LOG` under manual protection: report, change nothing.
    DirtyGet {
        /// Which slot.
        id: SlotId,
    },
    /// `KVM_CLEAR_DIRTY_LOG`: forget the pages, and write-protect them so that the next write is logged.
    DirtyClear {
        /// Which slot.
        id: SlotId,
        /// First frame.
        gfn: Gfn,
        /// How many.
        pages: u32,
    },
    /// Write-protect one frame under every alias (`kvm_mmu_slot_gfn_write_protect()`).
    WriteProtect {
        /// The frame.
        gfn: Gfn,
    },
    /// Somebody wants to know of every write to a frame, as a hypervisor does for the page tables it shadows: from now on
    /// writes through any alias are emulated (`kvm_write_track_add_gfn()`).
    WriteTrack {
        /// The frame.
        gfn: Gfn,
    },
    /// Nobody does any more.
    WriteUntrack {
        /// The frame.
        gfn: Gfn,
    },
    /// Frames become private or shared (`KVM_SET_MEMORY_ATTRIBUTES`). What maps them goes, and no large leaf has both kinds
    /// (`KVM_LPAGE_MIXED_FLAG`). Which page is behind them does not change here.
    Attributes {
        /// First frame.
        gfn: Gfn,
        /// How many.
        pages: u32,
        /// Which of the two.
        private: bool,
    },
    /// The first half: what maps the frames is gone, and nothing may map them before the end.
    AttributesBegin {
        /// First frame.
        gfn: Gfn,
        /// How many.
        pages: u32,
        /// Which of the two.
        private: bool,
    },
    /// The second half: the frames are what they were to become.
    AttributesEnd,
    /// Frames get another memory type, as when the guest writes an MTRR: what maps them goes, whatever its size
    /// (`kvm_zap_gfn_range()`).
    MemoryType {
        /// First frame.
        gfn: Gfn,
        /// How many.
        pages: u32,
        /// Which type.
        memory: MemoryType,
    },
    /// What maps frames begins to go, whatever its size, though nothing else changes (`kvm_zap_gfn_range()`). Whoever walks the tables
    /// for so long lets others have their turn in between: here after `leaves` leaves, if there are more. Flushes are not left
    /// for later.
    ZapBegin {
        /// First frame.
        gfn: Gfn,
        /// How many.
        pages: u32,
        /// How many leaves go before others have their turn.
        leaves: u8,
    },
    /// The rest of them go: nothing maps the frames, from before the begin or since.
    ZapEnd,
    /// The recovery worker's turn, where large leaves must not be executable: the oldest of the tables in whose place a large leaf
    /// would be, were it not for an instruction fetch, goes (`kvm_recover_nx_huge_pages()`).
    NxRecover,
    /// From now on there may be so many shadow pages (`KVM_SET_NR_MMU_PAGES`). What is mapped through one that has to go is
    /// mapped again when it is accessed; the guest cannot tell.
    MmuPages {
        /// How many, [`MMU_PAGES_MIN`](crate::limits::MMU_PAGES_MIN) or more.
        pages: u8,
    },
    /// From now on the TLB flush back-end behaves so.
    Backend(BackendMode),
    /// A software walk of the guest's own page tables: one table pointer, one leaf, each with any alias.
    Translate {
        /// The vCPU.
        vcpu: u8,
        /// The address in the upper entry: where the lower table lies.
        table: Gpa,
        /// The address in the leaf entry.
        leaf: Gpa,
    },
    /// The guest writes an entry of a page that it uses as a page table: a write like any other, through any alias.
    WriteGpte {
        /// The vCPU.
        vcpu: u8,
        /// The page, with any alias.
        gpa: Gpa,
        /// Which entry, below [`GPTES`](crate::limits::GPTES).
        index: u8,
        /// What it becomes, in the VM's paging mode.
        gpte: Gpte,
    },
    /// A software walk of the guest's own page tables as they are in memory, for a program in user mode
    /// (`gva_to_gpa()`, `KVM_TRANSLATE`).
    GuestWalk {
        /// The vCPU.
        vcpu: u8,
        /// Where the walk begins, with any alias: CR3, a page-directory pointer in PAE, the EPT pointer or nested CR3.
        root: Gpa,
        /// The guest virtual page, or the page of the guest's guest.
        gva: Gva,
        /// What the program does there.
        access: Access,
    },
    /// The same program goes there itself, with the hypervisor shadowing the guest's tables: it translates by tables that the
    /// hypervisor made of them (`FNAME(page_fault)()`). The frames of its VM lie side by side.
    GuestAccess {
        /// The vCPU.
        vcpu: u8,
        /// Where the guest's tables begin, with any alias.
        root: Gpa,
        /// The guest virtual page.
        gva: Gva,
        /// Read, write or execute.
        access: Access,
    },
    /// The guest empties its TLB (a write to CR3): from here on what it reaches is what its tables say now
    /// (`kvm_mmu_sync_roots()`).
    GuestFlush {
        /// The vCPU, whose TLB alone it is.
        vcpu: u8,
    },
    /// A vCPU takes one of the pages that it waits for and that have been read in, if there is one: it is mapped under the name that
    /// the vCPU faulted on, and the guest is told (`kvm_check_async_pf_completion()`).
    PageReady {
        /// The vCPU.
        vcpu: u8,
    },
    /// A vCPU waits for nothing any more: its guest does not want to be told, or it starts anew
    /// (`kvm_clear_async_pf_completion_queue()`).
    AsyncPfClear {
        /// The vCPU.
        vcpu: u8,
    },
}

impl Op {
    /// What kind of op this is.
    pub const fn kind(&self) -> OpKind {
        match self {
            Op::Slot { change, .. } | Op::SlotBegin { change, .. } => match change {
                SlotChange::Create { .. } => OpKind::SlotCreate,
                SlotChange::Delete => OpKind::SlotDelete,
                SlotChange::Move { .. } => OpKind::SlotMove,
                SlotChange::Flags(_) => OpKind::SlotFlags,
            },
            Op::SlotAliased { .. } => OpKind::SlotAliased,
            Op::SlotEnd => OpKind::SlotEnd,
            Op::Access { access, .. } => match access {
                Access::Read => OpKind::Read,
                Access::Write => OpKind::Write,
                Access::Execute => OpKind::Execute,
            },
            Op::FaultBegin { .. } => OpKind::FaultBegin,
            Op::FaultEnd { .. } => OpKind::FaultEnd,
            Op::Prefault { .. } => OpKind::Prefault,
            Op::Unmap { .. } => OpKind::Unmap,
            Op::UnmapBegin { .. } => OpKind::UnmapBegin,
            Op::UnmapEnd { .. } => OpKind::UnmapEnd,
            Op::Collapse { .. } => OpKind::Collapse,
            Op::PageOut { .. } => OpKind::PageOut,
            Op::PageIn { .. } => OpKind::PageIn,
            Op::ProtNone { .. } => OpKind::ProtNone,
            Op::Age { .. } => OpKind::Age,
            Op::DirtyGet { .. } => OpKind::DirtyGet,
            Op::DirtyClear { .. } => OpKind::DirtyClear,
            Op::WriteProtect { .. } => OpKind::WriteProtect,
            Op::WriteTrack { .. } => OpKind::WriteTrack,
            Op::WriteUntrack { .. } => OpKind::WriteUntrack,
            Op::Attributes { .. } | Op::AttributesBegin { .. } => OpKind::Attributes,
            Op::AttributesEnd => OpKind::AttributesEnd,
            Op::MemoryType { .. } => OpKind::MemoryType,
            Op::ZapBegin { .. } => OpKind::ZapBegin,
            Op::ZapEnd => OpKind::ZapEnd,
            Op::NxRecover => OpKind::NxRecover,
            Op::MmuPages { .. } => OpKind::MmuPages,
            Op::Backend(_) => OpKind::Backend,
            Op::Translate { .. } => OpKind::Translate,
            Op::WriteGpte { .. } => OpKind::WriteGpte,
            Op::GuestWalk { .. } => OpKind::GuestWalk,
            Op::GuestAccess { .. } => OpKind::GuestAccess,
            Op::GuestFlush { .. } => OpKind::GuestFlush,
            Op::PageReady { .. } => OpKind::PageReady,
            Op::AsyncPfClear { .. } => OpKind::AsyncPfClear,
        }
    }
}
