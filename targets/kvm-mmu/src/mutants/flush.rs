//! Mutants of hunk 2: range flushes under every alias (`kvm_flush_remote_tlbs_with_address()`).

use crate::host::TlbFlush;
use crate::policy::{Corrected, Mistake, RfcV3};
use gpa_model::{Alias, Gfn, Gpa, StolenMask, VcpuSet};

mutants! {
    FlushBaseOnly = "M10-flush-base-only", "flush: the alias range is left out", "alias_flush" / "stale-write", {
        fn flush_range(&self, stolen: StolenMask, gfn: Gfn, pages: u64, tlb: &mut dyn TlbFlush) {
            flush_or_all(tlb, stolen.join(gfn, Alias::NONE), pages);
        }
    }
    FlushAliasOnly = "M11-flush-alias-only", "flush: the base range is left out", "alias_flush" / "stale-write", {
        fn flush_range(&self, stolen: StolenMask, gfn: Gfn, pages: u64, tlb: &mut dyn TlbFlush) {
            let last = stolen.alias_count() - 1;
            flush_or_all(tlb, stolen.join(gfn, stolen.alias(last)), pages);
        }
    }
    FlushOnlyAllBits = "M13-flush-only-all-bits", "flush: with two stolen bits, only none and both", "alias_flush" / "stale-write", {
        fn flush_range(&self, stolen: StolenMask, gfn: Gfn, pages: u64, tlb: &mut dyn TlbFlush) {
            if !tlb.has_range() || tlb.range(stolen.join(gfn, Alias::NONE), pages).is_err() {
                return tlb.all();
            }
            flush_or_all(tlb, stolen.join(gfn, stolen.alias(stolen.alias_count() - 1)), pages);
        }
    }
    NoRangeOpSilent = "M14-no-range-op-silent", "flush: nothing is flushed where ranges cannot be", "alias_flush" / "stale-write", {
        fn flush_range(&self, stolen: StolenMask, gfn: Gfn, pages: u64, tlb: &mut dyn TlbFlush) {
            if tlb.has_range() {
                Corrected.flush_range(stolen, gfn, pages, tlb);
            }
        }
    }
    FirstErrIgnored = "M15-first-err-ignored", "flush: the error of the first range is ignored", "alias_flush" / "stale-write", {
        fn flush_range(&self, stolen: StolenMask, gfn: Gfn, pages: u64, tlb: &mut dyn TlbFlush) {
            if !tlb.has_range() || stolen.alias_count() > 2 {
                return tlb.all();
            }
            let _ignored = tlb.range(stolen.join(gfn, Alias::NONE), pages);
            if stolen.alias_count() == 2 {
                flush_or_all(tlb, stolen.join(gfn, stolen.alias(1)), pages);
            }
        }
    }
    SecondErrIgnored = "M16-second-err-ignored", "flush: the error of the alias range is ignored (gap G1)", "alias_flush" / "stale-write", {
        fn flush_range(&self, stolen: StolenMask, gfn: Gfn, pages: u64, tlb: &mut dyn TlbFlush) {
            RfcV3.flush_range(stolen, gfn, pages, tlb);
        }
    }
    PagesShort = "M1A-pages-short", "flush: the alias range is one page short", "alias_flush" / "stale-write", {
        fn flush_range(&self, stolen: StolenMask, gfn: Gfn, pages: u64, tlb: &mut dyn TlbFlush) {
            if !tlb.has_range() || stolen.alias_count() > 2 {
                return tlb.all();
            }
            for alias in stolen.aliases() {
                let pages = if alias.is_none() { pages } else { pages - 1 };
                if tlb.range(stolen.join(gfn, alias), pages).is_err() {
                    return tlb.all();
                }
            }
        }
    }
    NoRound = "M19-no-round", "flush: a large leaf is flushed from the faulting page on", "alias_flush" / "stale-write", {
        fn flushed_for_large(&self, _: Gfn, pages: u64, _: Gfn, gfn: Gfn) -> (Gfn, u64) {
            (gfn, pages)
        }
    }
    FlushOneVcpu = "M1V-flush-one-vcpu", "flush: only one vCPU is reached", "alias_flush" / "stale-page", {
        fn flush_all(&self, tlb: &mut dyn TlbFlush) {
            tlb.on(VcpuSet::one(0));
        }
    }
    FlushBeforeZap = "M1W-flush-before-zap", "flush: an invalidation flushes before it zaps", "alias_flush" / "order", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::FlushBeforeZap
        }
    }
}

/// Flushes one range, or everything if that fails.
pub(super) fn flush_or_all(tlb: &mut dyn TlbFlush, gpa: Gpa, pages: u64) {
    if !tlb.has_range() || tlb.range(gpa, pages).is_err() {
        tlb.all();
    }
}
