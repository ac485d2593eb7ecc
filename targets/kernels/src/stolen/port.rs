// SPDX-License-Identifier: GPL-2.0-only
//! The patches of the RFC, ported: this file carries text of theirs, and so their license, that of the kernel.
//!
//! It is a port, not the patches as they were: functions have other names and other places in later kernels, and what the patches
//! did in some has to be done in others.

use super::{HOST, INTERNAL, MMU, MMU_H, PAGING, edit};
use crate::edits::{Edit, Rewrite};
use Rewrite::{After, Before, InFront, Replace};

/// What both designs share, on every kernel.
pub(super) const COMMON: [Edit; 18] = [
    edit(HOST, "struct kvm_arch", After("{\n", "\tgfn_t stolen_gfn_mask;\n")),
    // The helpers.
    edit(MMU_H, "kvm_translate_gpa", InFront(HELPERS)),
    edit(INTERNAL, "", After("#include <asm/kvm_host.h>\n", "#include \"mmu.h\"\n")),
    edit(
        MMU,
        "kvm_mmu_init_vm",
        Before(
            "INIT_LIST_HEAD(&kvm->arch.active_mmu_pages)",
            "kvm->arch.stolen_gfn_mask = stolen_gpa_mask >> PAGE_SHIFT;\n\t",
        ),
    ),
    // Distinct shadow pages for each alias, found by gfn and stolen bits, mapped by gfn alone.
    edit(INTERNAL, "struct kvm_mmu_page", Before("\tu64 *spt;", "\tgfn_t gfn_stolen_bits;\n")),
    edit(MMU, "kvm_mmu_find_shadow_page", Replace("sp->gfn != gfn", "(sp->gfn | sp->gfn_stolen_bits) != gfn")),
    edit(
        MMU,
        "kvm_mmu_alloc_shadow_page",
        Replace(
            "sp->gfn = gfn;",
            "sp->gfn = gfn & ~kvm_gfn_stolen_mask(kvm);\n\tsp->gfn_stolen_bits = gfn & kvm_gfn_stolen_mask(kvm);",
        ),
    ),
    edit(MMU, "kvm_mmu_get_child_sp", Replace("->gfn == gfn", "->gfn == (gfn & ~vcpu_gfn_stolen_mask(vcpu))")),
    edit(
        MMU,
        "direct_map",
        Before(
            "gfn_t base_gfn",
            "gfn_t gfn_stolen_bits = (fault->addr & vcpu_gpa_stolen_mask(vcpu)) >> PAGE_SHIFT;\n\t",
        ),
    ),
    edit(MMU, "direct_map", Replace("it.sptep, base_gfn, true", "it.sptep, base_gfn | gfn_stolen_bits, true")),
    // The walker of 64-bit tables strips what it reads; the others do not.
    edit(PAGING, "gpte_to_gfn_lvl", Replace("(pt_element_t gpte", "(struct kvm_vcpu *vcpu, pt_element_t gpte")),
    edit(PAGING, "gpte_to_gfn_lvl", Replace("PT_LVL_ADDR_MASK(lvl)", "PT_LVL_ADDR_MASK(lvl) & ~PT_STOLEN_MASK(vcpu)")),
    edit(PAGING, "", After("PT_LEVEL_BITS)\n\n", STOLEN_MASK)),
    edit(
        PAGING,
        "",
        Replace(
            "#define gpte_to_gfn(pte) gpte_to_gfn_lvl((pte)",
            "#define gpte_to_gfn(vcpu, pte) gpte_to_gfn_lvl(vcpu, (pte)",
        ),
    ),
    edit(PAGING, "", Replace("gpte_to_gfn(pte);", "gpte_to_gfn(vcpu, pte);")),
    edit(PAGING, "", Replace("gpte_to_gfn(gpte);", "gpte_to_gfn(vcpu, gpte);")),
    edit(PAGING, "", Replace("gpte_to_gfn_lvl(pte, walker", "gpte_to_gfn_lvl(vcpu, pte, walker")),
    edit(PAGING, "", Replace("#undef gpte_to_gfn\n", "#undef gpte_to_gfn\n#undef PT_STOLEN_MASK\n")),
];

/// What both designs share, in the form of Linux 6.
pub(super) const COMMON_6: [Edit; 2] = [
    // A fault knows its gfn without stolen bits.
    edit(
        INTERNAL,
        "kvm_mmu_do_page_fault",
        Replace("fault.addr >> PAGE_SHIFT", "vcpu_gpa_to_gfn_unalias(vcpu, fault.addr)"),
    ),
    // No prefetch of private slots under an alias.
    edit(
        MMU,
        "direct_pte_prefetch_many",
        Replace("if (!slot)", "if (!slot || (sp->gfn_stolen_bits && slot->id >= KVM_USER_MEM_SLOTS))"),
    ),
];

/// The same in the form of Linux 7: faults are prepared in `mmu.c`, and all that is prefetched goes through one function.
pub(super) const COMMON_7: [Edit; 2] = [
    edit(MMU, "kvm_mmu_do_page_fault", Replace("gpa_to_gfn(fault.addr)", "vcpu_gpa_to_gfn_unalias(vcpu, fault.addr)")),
    edit(
        MMU,
        "kvm_mmu_prefetch_sptes",
        Replace("if (!slot)", "if (!slot || (sptep_to_sp(sptep)->gfn_stolen_bits && slot->id >= KVM_USER_MEM_SLOTS))"),
    ),
];

/// As posted: what becomes of the second flush's error, and the WARNs.
pub(super) const POSTED: [Edit; 3] = [
    edit(
        MMU,
        "kvm_stolen_flush_range",
        Replace("return stolen_backend(kvm, gfn, pages, true)", "stolen_backend(kvm, gfn, pages, true);\n\treturn 0"),
    ),
    edit(PAGING, "FNAME(prefetch_gpte)", Before("if (FNAME", "WARN_ON(gpte & vcpu_gpa_stolen_mask(vcpu));\n\n\t")),
    edit(PAGING, "FNAME(fetch)", Before("top_level =", "WARN_ON(fault->addr & vcpu_gpa_stolen_mask(vcpu));\n\n\t")),
];

/// As posted: where the exclusion stands, in the form of Linux 6.
pub(super) const POSTED_6: [Edit; 1] = [edit(MMU, "kvm_faultin_pfn", Before("if (unlikely(!slot))", EXCLUDE_FIRST))];

/// The same in the form of Linux 7.
pub(super) const POSTED_7: [Edit; 1] =
    [edit(MMU, "kvm_mmu_faultin_pfn", Before("if (unlikely(!slot))", EXCLUDE_FIRST))];

const HELPERS: &str = "static inline gfn_t kvm_gfn_stolen_mask(struct kvm *kvm)
{
	return kvm->arch.stolen_gfn_mask;
}

static inline gfn_t vcpu_gfn_stolen_mask(struct kvm_vcpu *vcpu)
{
	return kvm_gfn_stolen_mask(vcpu->kvm);
}

static inline gpa_t vcpu_gpa_stolen_mask(struct kvm_vcpu *vcpu)
{
	return vcpu_gfn_stolen_mask(vcpu) << PAGE_SHIFT;
}

static inline gfn_t vcpu_gpa_to_gfn_unalias(struct kvm_vcpu *vcpu, gpa_t gpa)
{
	return (gpa >> PAGE_SHIFT) & ~vcpu_gfn_stolen_mask(vcpu);
}

";

const STOLEN_MASK: &str = "#if PTTYPE == 64
#define PT_STOLEN_MASK(vcpu)	vcpu_gpa_stolen_mask(vcpu)
#else
#define PT_STOLEN_MASK(vcpu)	((pt_element_t)0)
#endif

";

const EXCLUDE_FIRST: &str = "if ((fault->addr & vcpu_gpa_stolen_mask(vcpu)) && slot &&
	    !kvm_is_visible_memslot(slot)) {
		fault->pfn = KVM_PFN_NOSLOT;
		fault->map_writable = false;
		return RET_PF_CONTINUE;
	}

	";
