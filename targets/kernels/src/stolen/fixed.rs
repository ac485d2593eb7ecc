//! What closes the gaps of the patches, as far as a kernel in a lab can show them.

use super::{MMU, PAGING, VMX, X86, edit};
use crate::edits::{Edit, Rewrite};
use Rewrite::{Before, InFront, Replace};

/// With gaps closed: a slot that is going away is retried under each of its names, a private slot is a hole under an alias, to faults and
/// to KVM's own walks of the guest's tables, a memslot cannot have a stolen bit in its gfns, and what the processor logs by its raw
/// address is dirty under its gfn.
///
/// The last is a defect of Linux's own: a walk of the rmap starts over at each level, and one that gives way at a higher level than the first
/// flushes up to where it is by then, which is not what it has zapped.
pub(super) const FIXED: [Edit; 4] = [
    edit(PAGING, "FNAME(walk_addr_generic)", InFront(STAY)),
    edit(X86, "kvm_arch_prepare_memory_region", Before("if ((new->base_gfn", REFUSE)),
    edit(VMX, "vmx_flush_pml_buffer", Replace("gpa >> PAGE_SHIFT", "vcpu_gpa_to_gfn_unalias(vcpu, gpa)")),
    edit(MMU, "__walk_slot_rmaps", Replace("iterator.gfn - start_gfn + 1", "end_gfn - start_gfn + 1")),
];

/// The rest of it in the form of Linux 6.
pub(super) const FIXED_6: [Edit; 3] = [
    edit(MMU, "kvm_faultin_pfn", Before("if (slot->id == APIC", EXCLUDE_LAST)),
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
];

/// The same in the form of Linux 7: the walk is told what it walks, and the memslot of what is prefetched is looked up later.
pub(super) const FIXED_7: [Edit; 3] = [
    edit(MMU, "kvm_mmu_faultin_pfn", Before("if (slot->id == APIC", EXCLUDE_LAST)),
    edit(
        PAGING,
        "FNAME(walk_addr_generic)",
        Before(
            "real_gpa = kvm_translate_gpa(vcpu, w, gfn_to_gpa(gfn)",
            "gfn |= FNAME(stolen_bits_that_stay)(vcpu, pte, gfn);\n\t",
        ),
    ),
    edit(
        PAGING,
        "FNAME(prefetch_gpte)",
        Before(
            "return kvm_mmu_prefetch_sptes",
            "if (FNAME(stolen_bits_that_stay)(vcpu, gpte, gfn))\n\t\treturn false;\n\n\t",
        ),
    ),
];

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
