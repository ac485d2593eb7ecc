//! Mutants of hunk 1: from gpa to gfn (`mmu.h`).

use super::raw_gfn;
use gpa_model::{Gfn, Gpa, StolenMask};

mutants! {
    MaskShift = "M01-mask-shift", "mmu.h: the mask is applied in gpa position to a gfn", "gfn_unalias" / "exit", {
        fn unalias(&self, stolen: StolenMask, gpa: Gpa) -> Gfn {
            Gfn::new(gpa.page() & !stolen.gpa_mask())
        }
    }
    UnaliasNoop = "M02-unalias-noop", "mmu.h: stolen bits stay in the gfn", "gfn_unalias" / "exit", {
        fn unalias(&self, _: StolenMask, gpa: Gpa) -> Gfn {
            raw_gfn(gpa)
        }
    }
    UnaliasWide = "M03-unalias-wide", "mmu.h: an ordinary address bit is stripped too", "gfn_unalias" / "spte", {
        fn unalias(&self, stolen: StolenMask, gpa: Gpa) -> Gfn {
            Gfn::new(stolen.split(gpa).0.raw() & !2)
        }
    }
}
