//! Mutants of the real kernel: each is the fixed design with one decision made wrongly, and says who is meant to notice.

use super::{MMU, MMU_H, edit};
use crate::edits::{Edit, Rewrite};
use Rewrite::Replace;

/// One decision made wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// Its name, that of the same mutant of `kvm-mmu`.
    pub name: &'static str,
    /// The hunk or claim of the RFC that it breaks.
    pub breaks: &'static str,
    /// The oracle meant to catch it, and the clause; `kernel` is the kernel itself, with a WARN.
    pub caught_by: (&'static str, &'static str),
    pub(super) edits: &'static [Edit],
}

/// A vCPU is entered while a flush is owed.
const FLUSH_OWED: (&str, &str) = ("kernel", "warn-kvm_stolen_flush_owed");
/// A leaf is added to the rmap of another gfn than the one its removal will look under.
const TWO_GFNS: (&str, &str) = ("kernel", "warn-kvm_mmu_page_set_translation");

/// Every mutant that a guest's exits or the kernel itself can give away, in the order of the reference.
pub const MUTANTS: [Mutant; 13] = [
    Mutant {
        name: "M02-unalias-noop",
        breaks: "mmu.h: stolen bits stay in the gfn of a fault",
        caught_by: ("gfn_unalias", "exit"),
        edits: &[edit(MMU_H, "vcpu_gpa_to_gfn_unalias", Replace(" & ~vcpu_gfn_stolen_mask(vcpu)", ""))],
    },
    Mutant {
        name: "M03-unalias-wide",
        breaks: "mmu.h: an ordinary bit of the gfn is stripped, too",
        caught_by: ("gfn_unalias", "exit"),
        edits: &[edit(
            MMU_H,
            "vcpu_gpa_to_gfn_unalias",
            Replace(
                "~vcpu_gfn_stolen_mask(vcpu)",
                "~(vcpu_gfn_stolen_mask(vcpu) ? vcpu_gfn_stolen_mask(vcpu) | 0x20 : 0)",
            ),
        )],
    },
    Mutant {
        name: "M10-flush-base-only",
        breaks: "flush: the alias range is left out",
        caught_by: FLUSH_OWED,
        edits: &[edit(
            MMU,
            "kvm_stolen_flush_range",
            Replace("return stolen_backend(kvm, gfn, pages, true)", "return 0"),
        )],
    },
    Mutant {
        name: "M11-flush-alias-only",
        breaks: "flush: the base range is left out",
        caught_by: FLUSH_OWED,
        edits: &[edit(
            MMU,
            "kvm_stolen_flush_range",
            Replace("if (stolen_backend(kvm, gfn, pages, false))", "if (stolen_backend(kvm, gfn, pages, mask != 0))"),
        )],
    },
    Mutant {
        name: "M14-no-range-op-silent",
        breaks: "flush: nothing is flushed where ranges cannot be",
        caught_by: FLUSH_OWED,
        edits: &[edit(
            MMU,
            "kvm_stolen_flush_range",
            Replace("STOLEN_RANGE_FLUSH))\n\t\treturn -EOPNOTSUPP;", "STOLEN_RANGE_FLUSH))\n\t\treturn 0;"),
        )],
    },
    Mutant {
        name: "M15-first-err-ignored",
        breaks: "flush: the error of the first range is ignored",
        caught_by: FLUSH_OWED,
        edits: &[edit(
            MMU,
            "kvm_stolen_flush_range",
            Replace(
                "if (stolen_backend(kvm, gfn, pages, false))\n\t\treturn -EIO;",
                "stolen_backend(kvm, gfn, pages, false);",
            ),
        )],
    },
    Mutant {
        name: "M16-second-err-ignored",
        breaks: "flush: the error of the alias range is ignored, as posted",
        caught_by: FLUSH_OWED,
        edits: &[edit(
            MMU,
            "kvm_stolen_flush_range",
            Replace(
                "return stolen_backend(kvm, gfn, pages, true)",
                "stolen_backend(kvm, gfn, pages, true);\n\treturn 0",
            ),
        )],
    },
    Mutant {
        name: "M23-spgfn-includes-stolen",
        breaks: "get_page: the gfn of a shadow page carries stolen bits",
        caught_by: TWO_GFNS,
        edits: &[edit(MMU, "kvm_mmu_alloc_shadow_page", Replace("gfn & ~kvm_gfn_stolen_mask(kvm)", "gfn"))],
    },
    Mutant {
        name: "M41-walk-by-gfn",
        breaks: "direct_map: the tables are walked by gfn, so an alias is never mapped",
        caught_by: ("guest", "hung"),
        edits: &[edit(
            MMU,
            "direct_map",
            Replace("for_each_shadow_entry(vcpu, fault->addr,", "for_each_shadow_entry(vcpu, gfn_to_gpa(fault->gfn),"),
        )],
    },
    Mutant {
        name: "M43-rmap-aliased",
        breaks: "set_spte: a leaf goes into the rmap of its gfn with stolen bits",
        caught_by: TWO_GFNS,
        edits: &[edit(
            MMU,
            "mmu_set_spte",
            Replace(
                "rmap_add(vcpu, slot, sptep, gfn,",
                "rmap_add(vcpu, slot, sptep, gfn | sptep_to_sp(sptep)->gfn_stolen_bits,",
            ),
        )],
    },
    Mutant {
        name: "M81-wrprot-first-spte-only",
        breaks: "claim: write-protecting a gfn reaches each of its SPTEs",
        caught_by: ("dirty_log", "write-protected"),
        edits: &[edit(
            MMU,
            "rmap_write_protect",
            Replace(
                "flush |= spte_write_protect(sptep, pt_protect);",
                "{\n\t\tflush |= spte_write_protect(sptep, pt_protect);\n\t\tbreak;\n\t}",
            ),
        )],
    },
    Mutant {
        name: "M87-unmap-first-spte-only",
        breaks: "claim: an invalidation reaches each SPTE of a gfn",
        caught_by: ("gfn_unalias", "spte"),
        edits: &[edit(
            MMU,
            "kvm_zap_rmap",
            Replace(
                "return kvm_zap_all_rmap_sptes(kvm, rmap_head);",
                "struct rmap_iterator iter;\n\tu64 *sptep = rmap_get_first(rmap_head, &iter);\n\n\tif (!sptep)\n\t\treturn false;\n\tkvm_zap_one_rmap_spte(kvm, rmap_head, sptep);\n\treturn true;",
            ),
        )],
    },
    Mutant {
        name: "M89-fastpf-dirty-raw",
        breaks: "claim: a fast page fault marks the gfn dirty, whatever the alias",
        caught_by: ("dirty_log", "missing"),
        edits: &[edit(
            MMU,
            "fast_pf_fix_direct_spte",
            Replace(
                "if (is_writable_pte(new_spte)",
                "if (!(fault->addr & vcpu_gpa_stolen_mask(vcpu)) && is_writable_pte(new_spte)",
            ),
        )],
    },
];
