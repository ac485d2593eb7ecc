//! Stolen GPA bits in the real kernel: the patches of the RFC, ported to Linux 6.12 as a script of [`Edit`]s.
//!
//! The mask is that of the module parameter `stolen_gpa_mask` when a VM is created. [`Design::Posted`] has what the patches have,
//! hunk for hunk, and their gaps; [`Design::Fixed`] closes those gaps that this kernel can show. Everything else is the same in
//! both, and with the mask 0 nothing differs from the stock kernel.
//!
//! Beside the patches the script adds `instruments`.

mod instruments;
mod mutants;

pub use mutants::{MUTANTS, Mutant};

use crate::edits::{Edit, Rewrite};
use Rewrite::{After, Before, InFront, Replace};

/// Which design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Design {
    /// That of the patches as posted.
    Posted,
    /// With their gaps closed.
    Fixed,
}

const HOST: &str = "arch/x86/include/asm/kvm_host.h";
const MMU_H: &str = "arch/x86/kvm/mmu.h";
const MMU: &str = "arch/x86/kvm/mmu/mmu.c";
const INTERNAL: &str = "arch/x86/kvm/mmu/mmu_internal.h";
const PAGING: &str = "arch/x86/kvm/mmu/paging_tmpl.h";
const VMX: &str = "arch/x86/kvm/vmx/vmx.c";
const X86: &str = "arch/x86/kvm/x86.c";
const MAIN: &str = "virt/kvm/kvm_main.c";
const DEBUGFS: &str = "arch/x86/kvm/debugfs.c";

/// Every file that some edit changes.
pub const FILES: [&str; 9] = [HOST, MMU_H, MMU, INTERNAL, PAGING, X86, MAIN, VMX, DEBUGFS];

const fn edit(file: &'static str, within: &'static str, rewrite: Rewrite) -> Edit {
    Edit { file, within, rewrite }
}

/// What both designs share.
const COMMON: [Edit; 20] = [
    edit(HOST, "struct kvm_arch", After("{\n", "\tgfn_t stolen_gfn_mask;\n")),
    // The helpers.
    edit(MMU_H, "kvm_translate_gpa", InFront(HELPERS)),
    edit(INTERNAL, "", After("#include <asm/kvm_host.h>\n", "#include \"mmu.h\"\n")),
    edit(
        MMU,
        "kvm_mmu_init_vm",
        Before("r = kvm_mmu_alloc", "kvm->arch.stolen_gfn_mask = stolen_gpa_mask >> PAGE_SHIFT;\n\t"),
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

/// As posted: where the exclusion stands, what becomes of the second flush's error, and the WARNs.
const POSTED: [Edit; 4] = [
    edit(MMU, "kvm_faultin_pfn", Before("if (unlikely(!slot))", EXCLUDE_FIRST)),
    edit(
        MMU,
        "kvm_stolen_flush_range",
        Replace("return stolen_backend(kvm, gfn, pages, true)", "stolen_backend(kvm, gfn, pages, true);\n\treturn 0"),
    ),
    edit(PAGING, "FNAME(prefetch_gpte)", Before("if (FNAME", "WARN_ON(gpte & vcpu_gpa_stolen_mask(vcpu));\n\n\t")),
    edit(PAGING, "FNAME(fetch)", Before("top_level =", "WARN_ON(fault->addr & vcpu_gpa_stolen_mask(vcpu));\n\n\t")),
];

/// With gaps closed: a slot that is going away is retried under each of its names, a private slot is a hole under an alias, to faults and
/// to KVM's own walks of the guest's tables, a memslot cannot have a stolen bit in its gfns, and what the processor logs by its raw
/// address is dirty under its gfn.
///
/// The last is a defect of Linux's own: a walk of the rmap starts over at each level, and one that gives way at a higher level than the first
/// flushes up to where it is by then, which is not what it has zapped.
const FIXED: [Edit; 7] = [
    edit(MMU, "kvm_faultin_pfn", Before("if (slot->id == APIC", EXCLUDE_LAST)),
    edit(PAGING, "FNAME(walk_addr_generic)", InFront(STAY)),
    edit(
        PAGING,
        "FNAME(walk_addr_generic)",
        Before(
            "real_gpa = kvm_translate_gpa(vcpu, mmu, gfn_to_gpa(gfn)",
            "gfn |= FNAME(stolen_bits_that_stay)(vcpu, pte, gfn);\n\t",
        ),
    ),
    edit(
        PAGING,
        "FNAME(prefetch_gpte)",
        Replace("if (!slot)", "if (!slot || FNAME(stolen_bits_that_stay)(vcpu, gpte, gfn))"),
    ),
    edit(X86, "kvm_arch_prepare_memory_region", Before("if ((new->base_gfn", REFUSE)),
    edit(VMX, "vmx_flush_pml_buffer", Replace("gpa >> PAGE_SHIFT", "vcpu_gpa_to_gfn_unalias(vcpu, gpa)")),
    edit(MMU, "__walk_slot_rmaps", Replace("iterator.gfn - start_gfn + 1", "end_gfn - start_gfn + 1")),
];

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

const EXCLUDE_LAST: &str = "if (fault->is_tdp && (fault->addr & vcpu_gpa_stolen_mask(vcpu)) &&
	    slot->id >= KVM_USER_MEM_SLOTS)
		return kvm_handle_noslot_fault(vcpu, fault, access);

	";

/// With its stolen bits the gfn is in no memslot, since none can have them.
const STAY: &str = "/* The stolen bits of a gpte that leads to a gfn in a private memslot, which has no alias. */
static gfn_t FNAME(stolen_bits_that_stay)(struct kvm_vcpu *vcpu, pt_element_t gpte, gfn_t gfn)
{
	gfn_t stolen = (gpte & PT_STOLEN_MASK(vcpu)) >> PAGE_SHIFT;
	struct kvm_memory_slot *slot = stolen ? kvm_vcpu_gfn_to_memslot(vcpu, gfn) : NULL;

	return slot && slot->id >= KVM_USER_MEM_SLOTS ? stolen : 0;
}

";

const REFUSE: &str = "if ((new->base_gfn | (new->base_gfn + new->npages - 1)) &
		    kvm->arch.stolen_gfn_mask)
			return -EINVAL;

		";

/// The whole script of `design`, with the change of `mutant` at its end.
pub fn script(design: Design, mutant: Option<&Mutant>) -> Vec<Edit> {
    let own: &[Edit] = match design {
        Design::Posted => &POSTED,
        Design::Fixed => &FIXED,
    };
    let mutant = mutant.map_or(&[][..], |mutant| mutant.edits);
    [&COMMON[..], &instruments::EDITS, own, mutant].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edit_is_about_a_file_of_the_list() {
        let mutants = MUTANTS.iter().flat_map(|mutant| mutant.edits);
        for edit in COMMON.iter().chain(&instruments::EDITS).chain(&POSTED).chain(&FIXED).chain(mutants) {
            assert!(FILES.contains(&edit.file), "{edit:?}");
        }
    }
}
