// SPDX-License-Identifier: GPL-2.0-only
// A look into KVM's structures: roots, shadow pages, memslots, vCPUs.
#define pr_fmt(fmt) fmt
#include <linux/kvm_host.h>
#include "mmu.h"
#include "mmu/mmu_internal.h"
#include "mmu/spte.h"
#include "mmu/tdp_mmu.h"
#include "worker.h"

extern void *worker_private_data(u32 fd);

struct worker_page {
	u64 gfn, table;
	u32 role, root_count;
	u8 level, address_space, direct, obsolete, access, guest_mode, tdp_mmu, unsync;
};

static bool obsolete(struct kvm *kvm, struct kvm_mmu_page *sp)
{
	if (sp->role.invalid)
		return true;
	return !is_tdp_mmu_page(sp) && sp->mmu_valid_gen != kvm->arch.mmu_valid_gen;
}

static void describe(struct kvm *kvm, struct kvm_mmu_page *sp, struct worker_page *page)
{
	*page = (struct worker_page){
		.gfn = sp->gfn, .table = __pa(sp->spt), .role = sp->role.word, .level = sp->role.level,
		.root_count = is_tdp_mmu_page(sp) ? refcount_read(&sp->tdp_mmu_root_count) : sp->root_count,
		.address_space = sp->role.smm, .direct = sp->role.direct, .obsolete = obsolete(kvm, sp),
		.access = sp->role.access, .guest_mode = sp->role.guest_mode, .tdp_mmu = is_tdp_mmu_page(sp), .unsync = sp->unsync,
	};
}

/* The roots of the TDP MMU, and all shadow pages of the other. How many there are; no more than max are written. */
u32 worker_pages(u32 vm, struct worker_page *pages, u32 max)
{
	struct kvm *kvm = worker_private_data(vm);
	struct kvm_mmu_page *sp;
	u32 n = 0;

	/* A list that was never initialised is of a kernel whose TDP MMU is off. */
	if (kvm->arch.tdp_mmu_roots.next)
		list_for_each_entry(sp, &kvm->arch.tdp_mmu_roots, link)
			if (n++ < max)
				describe(kvm, sp, &pages[n - 1]);
	list_for_each_entry(sp, &kvm->arch.active_mmu_pages, link)
		if (n++ < max)
			describe(kvm, sp, &pages[n - 1]);
	return n;
}

/* The shadow page that a table is. */
bool worker_page_of_table(u32 vm, u64 table, struct worker_page *page)
{
	struct kvm_mmu_page *sp = (void *)pfn_to_page(table >> PAGE_SHIFT)->private;

	if (sp)
		describe(worker_private_data(vm), sp, page);
	return sp != NULL;
}

struct worker_vcpu {
	u64 root, requests;
	struct kvm_run *run;
	void *ring;
	u32 ring_entries, id, smm, root_level, mmio_gen_in_flux, padding;
	struct kvm *kvm;
};

void worker_vcpu(u32 fd, struct worker_vcpu *out)
{
	struct kvm_vcpu *vcpu = worker_private_data(fd);

	*out = (struct worker_vcpu){
		.root = vcpu->arch.mmu->root.hpa, .requests = READ_ONCE(vcpu->requests), .run = vcpu->run,
		.ring = vcpu->dirty_ring.dirty_gfns, .ring_entries = vcpu->dirty_ring.size,
		.id = vcpu->vcpu_id, .smm = !!(vcpu->arch.hflags & HF_SMM_MASK),
		.root_level = vcpu->arch.mmu->root_role.level,
		.mmio_gen_in_flux = !!(vcpu->arch.mmio_gen & KVM_MEMSLOT_GEN_UPDATE_IN_PROGRESS), .kvm = vcpu->kvm,
	};
}

/* Whether what the TLB holds of its tables is to be dropped at the next entry. */
bool worker_flush_owed(u32 fd)
{
	struct kvm_vcpu *vcpu = worker_private_data(fd);

	return kvm_test_request(KVM_REQ_TLB_FLUSH, vcpu) || kvm_test_request(KVM_REQ_TLB_FLUSH_CURRENT, vcpu) ||
	       kvm_test_request(KVM_REQ_TLB_FLUSH_GUEST, vcpu) || kvm_test_request(KVM_REQ_MMU_FREE_OBSOLETE_ROOTS, vcpu) ||
	       !VALID_PAGE(vcpu->arch.mmu->root.hpa);
}

struct worker_slot {
	u64 gfn, pages, hva, flags;
	unsigned long *dirty;
};

/* Whether there is such a memslot. The low 16 bits are its id, those above the address space. */
bool worker_slot(u32 vm, u32 id, struct worker_slot *out)
{
	struct kvm *kvm = worker_private_data(vm);
	struct kvm_memslots *slots = __kvm_memslots(kvm, id >> 16);
	struct kvm_memory_slot *slot = id_to_memslot(slots, id & 0xffff);

	if (!slot)
		return false;
	*out = (struct worker_slot){ slot->base_gfn, slot->npages, slot->userspace_addr, slot->flags, slot->dirty_bitmap };
	return true;
}

const unsigned long worker_vcpu_id = offsetof(struct kvm_vcpu, vcpu_id);
const unsigned long worker_flush_remote_tlbs = offsetof(struct kvm_x86_ops, flush_remote_tlbs);
const unsigned long worker_flush_remote_tlbs_range = offsetof(struct kvm_x86_ops, flush_remote_tlbs_range);
