//! Mutants of claims in the RFC's message: records kept by gfn carry no stolen bits, and operations reach every alias.

use super::{aliased, raw_gfn};
use crate::DirtyGfn;
use crate::policy::Mistake;
use crate::tables::spte::EptNoAd;
use gpa_model::{Alias, Gfn, Gpa, StolenMask};

mutants! {
    DirtyByRaw = "M80-dirty-by-raw", "claim: the dirty log is kept by gfn", "dirty_log" / "missing", {
        fn dirty_key(&self, gfn: Gfn, alias: Alias) -> Gfn {
            aliased(gfn, alias)
        }
    }
    WrprotFirstOnly = "M81-wrprot-first-spte-only", "claim: write-protection reaches every alias", "dirty_log" / "write-protected", {
        fn write_protected(&self, len: usize) -> usize {
            len.min(1)
        }
    }
    MtrrByRaw = "M83-mtrr-by-raw", "claim: memory types are looked up by gfn (gap G5)", "large_leaf" / "memory-type", {
        fn memory_type_gfn(&self, _: StolenMask, gpa: Gpa) -> Gfn {
            raw_gfn(gpa)
        }
    }
    MtrrWithoutZap = "M83V-mtrr-without-zap", "claim: what maps frames goes when their memory type changes", "large_leaf" / "memory-type", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::MemoryTypeWithoutZap
        }
    }
    ApfDedupeByRaw = "M84-apf-dedupe-by-raw", "claim: a vCPU waits for a page once, by whatever name it is faulted on", "gfn_unalias" / "exit", {
        fn awaited_gfn(&self, _: StolenMask, gpa: Gpa) -> Gfn {
            raw_gfn(gpa)
        }
    }
    ApfReadyDropsAlias = "M85-apf-ready-drops-alias", "claim: a page that was waited for is mapped under the name that was faulted on", "progress" / "mapped", {
        fn ready_gpa(&self, stolen: StolenMask, gpa: Gpa) -> Gpa {
            stolen.base(gpa)
        }
    }
    MmioGfnAliased = "M86-mmio-spte-gfn-aliased", "claim: an MMIO entry remembers the gfn", "gfn_unalias" / "keyed", {
        fn mmio_gfn(&self, gfn: Gfn, alias: Alias) -> Gfn {
            aliased(gfn, alias)
        }
    }
    UnmapFirstOnly = "M87-unmap-first-spte-only", "claim: unmapping reaches every alias", "gfn_unalias" / "spte", {
        fn zapped(&self, len: usize) -> usize {
            len.min(1)
        }
    }
    AgeBaseOnly = "M88-age-base-only", "claim: ageing reaches every alias", "gfn_unalias" / "age", {
        fn ages(&self, alias: Alias) -> bool {
            alias.is_none()
        }
    }
    IdleUnflushed on EptNoAd = "M88V-idle-unflushed", "claim: what ageing took the rights from may still be in a TLB", "alias_flush" / "stale-page", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::IdleUnflushed
        }
    }
    FastpfDirtyRaw = "M89-fastpf-dirty-raw", "claim: a fast page fault logs by gfn", "dirty_log" / "missing", {
        fn fast_dirty_key(&self, gfn: Gfn, alias: Alias) -> Gfn {
            aliased(gfn, alias)
        }
    }
    PmlRaw = "M8A-pml-raw", "claim: addresses logged by the processor are unaliased (gap G6)", "dirty_log" / "missing", {
        fn pml_gfn(&self, _: StolenMask, gpa: Gpa) -> Gfn {
            raw_gfn(gpa)
        }
    }
    RingOverruns = "M8S-ring-overruns", "claim: no entry of a dirty ring is lost for want of room", "dirty_log" / "missing", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::RingOverruns
        }
    }
    RingByRaw = "M80V-ring-by-raw", "claim: a dirty ring lists frames without stolen bits", "dirty_log" / "missing", {
        fn listed_gfn(&self, gfn: Gfn, alias: Alias) -> Gfn {
            aliased(gfn, alias)
        }
    }
    ResetByCount = "M8T-reset-by-count", "claim: the reset of a dirty ring reaches each page that it listed, not as many from the first one on", "dirty_log" / "write-protected", {
        fn continues_run(&self, first: DirtyGfn, _: u64, next: DirtyGfn) -> bool {
            next.slot == first.slot
        }
    }
    ResetUnflushed = "M8U-reset-unflushed", "claim: what the reset of a dirty ring write-protects is flushed", "alias_flush" / "stale-write", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::ResetUnflushed
        }
    }
    PmlNotDrained = "M8V-pml-not-drained", "claim: the log holds what the processor has logged", "dirty_log" / "missing", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::PmlNotDrained
        }
    }
    SmallZappedOnly = "M8W-large-not-zapped", "claim: unmapping reaches leaves of every size", "gfn_unalias" / "spte", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::LargeNotZapped
        }
    }
    FastpfLarge = "M8X-fastpf-large", "claim: a large leaf is not made writable where writes are logged", "dirty_log" / "missing", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::FastFaultOnLarge
        }
    }
    PmlLarge = "M8Y-pml-large", "claim: no dirty bit of a large leaf logs writes", "dirty_log" / "missing", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::PmlOnLarge
        }
    }
    CollapseUnflushed = "M8Z-collapse-unflushed", "claim: what makes room for large leaves is flushed", "alias_flush" / "stale-page", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::CollapsedUnflushed
        }
    }
    AgesFirstOnly = "M88W-age-first-only", "claim: ageing looks at every alias", "gfn_unalias" / "age", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::AgesFirstOnly
        }
    }
    AgeClearsNothing = "M88X-age-clears-nothing", "claim: what was aged is idle until it is used again", "gfn_unalias" / "idle", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::AgeClearsNothing
        }
    }
    MmioOtherAlias = "M86V-mmio-other-alias", "claim: an MMIO exit tells the address that was accessed", "gfn_unalias" / "exit", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::MmioOtherAlias
        }
    }
}
