//! Mistakes that have nothing to do with what aliasing decides, each for one mutant.

/// A mistake that a mutant makes ([`Policy::plants`](super::Policy::plants)). Without the feature `mutants` none is compiled in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mistake {
    /// The host's invalidation flushes TLBs first, and zaps after that.
    FlushBeforeZap,
    /// A large leaf replaces a table, and no flush follows.
    TableReplacedUnflushed,
    /// A fault starts again while any invalidation is open, wherever it is.
    StaleWhenever,
    /// A guest table that becomes shadowed is write-protected without a flush.
    TableUnflushed,
    /// Zapping a leaf of an indirect shadow page owes no flush.
    ShadowLeafUnflushed,
    /// Ageing clears the accessed bit of one alias only.
    AgesFirstOnly,
    /// Ageing reports accessed bits and clears none.
    AgeClearsNothing,
    /// An MMIO exit tells another alias than the accessed one.
    MmioOtherAlias,
    /// A table is linked though shadow pages below it are unsync (65855ed8b034).
    LinkedWithoutSync,
    /// An MMIO entry replaces a present SPTE that is not dropped (`mmu_set_spte()`).
    MmioOverPresent,
    /// A read of a guest table whose shadow pages are unsync makes it read-only, without a flush.
    UnsyncReadProtects,
    /// Neighbours are prefetched during an invalidation, which may concern them.
    PrefetchInInvalidation,
    /// A page that was read in is not referenced (`hva_to_pfn_remapped()`).
    ReadInNotHeld,
    /// A page is released before it is mapped.
    ReleasedBeforeMapped,
    /// A fault that starts again does not release its page.
    StaleNotReleased,
    /// A page that cannot be had ends in MMIO instead of an error (`kvm_handle_error_pfn()`).
    NoPageIsNoSlot,
    /// A fault does not check under the lock if its page was invalidated.
    NotifierUnchecked,
    /// A fault does not check under the lock if the memslots have changed.
    SlotsUnchecked,
    /// MMIO entries are kept when the memslot generation wraps.
    MmioWrapIgnored,
    /// Write-protection skips SPTEs that are read-only now, though a fast page fault could make them writable.
    WriteProtectSkipsReadonly,
    /// A flush that is owed for one root is forgotten by the walk of the next.
    FlushOfLastRoot,
    /// Invalidations do not reach replaced roots whose tables still exist (d62007edf01f).
    RetiredRootForgotten,
    /// The dirty log is read before the processor's log is drained.
    PmlNotDrained,
    /// A vCPU with a nearly full dirty ring enters the guest.
    RingOverruns,
    /// A vCPU that stops waiting keeps pages that are ready (CVE-2024-26976).
    ApfOutlivesVcpu,
    /// No flush follows a reset of dirty rings.
    ResetUnflushed,
    /// Recycled shadow pages are reused without a flush.
    RecycledUnflushed,
    /// Table pages are freed before the flush.
    FreedBeforeFlush,
    /// No flush follows when all mappings become obsolete.
    ObsoleteUnflushed,
    /// An obsolete shadow page is used for a new mapping.
    ObsoleteFound,
    /// Zapping an aged SPTE owes no flush, though ageing flushed nothing.
    IdleUnflushed,
    /// Mappings stay when their memory type changes.
    MemoryTypeWithoutZap,
    /// Mappings stay when their attributes change.
    AttributesWithoutZap,
    /// A large leaf covers gfns whose attributes are changing.
    LargeWhileAttributesChange,
    /// An instruction fetch is mapped by a large leaf, which is not executable.
    ExecuteMappedLarge,
    /// A large leaf is executable where that is forbidden (CVE-2018-12207).
    LargeExecutable,
    /// No flush follows when NX recovery removes a table.
    RecoveredUnflushed,
    /// A table that is zapped stays on the list of NX recovery.
    ZappedStaysListed,
    /// Zaps do not reach large leaves.
    LargeNotZapped,
    /// A fast page fault makes a large leaf of a logged memslot writable.
    FastFaultOnLarge,
    /// A large leaf has its dirty bit cleared instead of being write-protected.
    PmlOnLarge,
    /// No flush follows when small leaves are removed in favour of large ones.
    CollapsedUnflushed,
    /// A fault does not compare the kind of memory that its address names with the attribute of the gfn.
    KindUnchecked,
    /// A fault that began before a change of attributes does not start again.
    FaultOverConversion,
    /// A request to map an address maps private memory, whatever the attribute says (aa2024c01a9a).
    PrefaultOtherKind,
}
