//! Mutants of upstream's design. U*n* are its own weaknesses; the others are gaps and mistakes of the catalogue in an
//! MMU with one root for each alias.

use super::flush::flush_or_all;
use super::raw_gfn;
use crate::host::TlbFlush;
use crate::policy::{DirectMirror, Family, Mistake};
use crate::tables::roots::GfnFilter;
use gpa_model::{Alias, Gfn, Gpa, StolenMask};

mutants! {
    RangeFlushUnshifted = "U1-range-flush-unshifted", "upstream: a range is flushed by its gfns, under which nothing direct is cached", "alias_flush" / "stale-write", {
        fn family(&self) -> Family { DirectMirror.family() }

        fn flush_range(&self, stolen: StolenMask, gfn: Gfn, pages: u64, tlb: &mut dyn TlbFlush) {
            flush_or_all(tlb, stolen.join(gfn, Alias::NONE), pages);
        }
    }
    GetWalkRaw = "U2-get-walk-raw", "upstream: software walks by the raw address and finds no entry (kvm_tdp_mmu_get_walk())", "progress" / "retry", {
        fn family(&self) -> Family { DirectMirror.family() }

        fn walk_key(&self, stolen: StolenMask, gpa: Gpa) -> (Gfn, Alias) {
            (raw_gfn(gpa), stolen.split(gpa).1)
        }
    }
    NotifierOneRoot = "U2V-notifier-one-root", "upstream: the notifier asks for shared names where private ones are behind an hva too", "gfn_unalias" / "spte", {
        fn family(&self) -> Family { DirectMirror.family() }

        fn invalidated_names(&self, _: bool) -> GfnFilter {
            GfnFilter::Shared
        }
    }
    SeedOnTdpMmu = "G4-seed-on-tdp-mmu", "scope: the TDP MMU knows of no alias and maps the base address (gap G4)", "progress" / "retry", {
        fn family(&self) -> Family { DirectMirror.family() }

        fn walked(&self, stolen: StolenMask, gpa: Gpa) -> Gpa {
            stolen.base(gpa)
        }
    }
    YieldOwing = "B01-yield-owing", "history: a walk yields in one root and still owes the flush for another (a835429cda91)", "alias_flush" / "yield", {
        fn family(&self) -> Family { DirectMirror.family() }

        fn flushes_before_yield(&self, _: bool, of_this_root: bool) -> bool {
            of_this_root
        }
    }
    RestartAdvances = "B12-restart-advances", "history: a walk that yielded goes on behind the entry that it was at (CVE-2021-47094)", "gfn_unalias" / "zapped", {
        fn family(&self) -> Family { DirectMirror.family() }

        fn restarted_at(&self, next: Gfn, pages: u64) -> Gfn {
            next.add(pages)
        }
    }
    FlushOfLastRoot = "B07-flush-of-last-root", "history: what the walk of one root owes is forgotten by that of the next (873dd122172f)", "alias_flush" / "stale-page", {
        fn family(&self) -> Family { DirectMirror.family() }

        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::FlushOfLastRoot
        }
    }
    BoundedByMaxphyaddr = "B10-bounded-by-maxphyaddr", "history: tables that translate more than a guest can address are left when all is zapped (524a1e4e381f)", "structure" / "leaked", {
        fn family(&self) -> Family { DirectMirror.family() }

        fn takes_apart(&self, end: Gpa, maxphyaddr: u8) -> bool {
            end.raw() <= 1 << maxphyaddr
        }
    }
    RetiredRootForgotten = "B11-retired-root-forgotten", "history: the notifier visits only roots that vCPUs load (d62007edf01f)", "structure" / "retired", {
        fn family(&self) -> Family { DirectMirror.family() }

        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::RetiredRootForgotten
        }
    }
    PrefaultDirect = "B49W-prefault-direct", "history: asked for a frame, the TDP MMU maps it in the root of its other name (aa2024c01a9a)", "progress" / "mapped", {
        fn family(&self) -> Family { DirectMirror.family() }

        fn prefaulted(&self, stolen: StolenMask, gpa: Gpa) -> Gpa {
            stolen.join(stolen.split(gpa).0, stolen.alias(stolen.alias_count() - 1))
        }
    }
}
