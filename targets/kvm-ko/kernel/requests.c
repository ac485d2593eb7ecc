// SPDX-License-Identifier: GPL-2.0-only
// What other parts of a kernel ask KVM for: write tracking, write protection, zapping, recovery of huge pages; and the rmap.
#define pr_fmt(fmt) fmt
#include <linux/kvm_host.h>
#include <linux/jiffies.h>
#include <linux/sched/vhost_task.h>
#include <asm/kvm_page_track.h>
#include "mmu.h"
#include "mmu/mmu_internal.h"
#include "worker.h"

extern void *worker_private_data(u32 fd);

/* External write tracking, as of a driver for a virtual GPU. */
struct tracker {
	struct kvm_page_track_notifier_node node;
	struct kvm *kvm;
};
#define TRACKERS 16
static struct tracker *trackers[TRACKERS];

static void tracked(gpa_t gpa, const u8 *new, int bytes, struct kvm_page_track_notifier_node *node) { worker_tracked(gpa, bytes); }
static void removed(gfn_t gfn, unsigned long pages, struct kvm_page_track_notifier_node *node) { }

/* Begin, or end, to be told of writes to tracked frames of a VM. */
int worker_track_vm(u32 vm, bool on)
{
	struct kvm *kvm = worker_private_data(vm);
	int i, error;

	for (i = 0; i < TRACKERS; i++)
		if (on ? !trackers[i] : trackers[i] && trackers[i]->kvm == kvm)
			break;
	if (i == TRACKERS)
		return -EINVAL;
	if (!on) {
		kvm_page_track_unregister_notifier(kvm, &trackers[i]->node);
		worker_free(trackers[i]);
		trackers[i] = NULL;
		return 0;
	}
	trackers[i] = worker_alloc(sizeof(struct tracker), true);
	trackers[i]->kvm = kvm;
	trackers[i]->node.track_write = tracked;
	trackers[i]->node.track_remove_region = removed;
	error = kvm_page_track_register_notifier(kvm, &trackers[i]->node);
	if (error) {
		worker_free(trackers[i]);
		trackers[i] = NULL;
	}
	return error;
}

int worker_track(u32 vm, u64 gfn, bool on)
{
	struct kvm *kvm = worker_private_data(vm);

	return on ? kvm_write_track_add_gfn(kvm, gfn) : kvm_write_track_remove_gfn(kvm, gfn);
}

/* 1 if anything was write-protected, 0 if not, -ENOENT without a memslot. Flushes as its callers do. */
int worker_write_protect(u32 vm, u32 address_space, u64 gfn)
{
	struct kvm *kvm = worker_private_data(vm);
	int index = srcu_read_lock(&kvm->srcu), result = -ENOENT;
	struct kvm_memory_slot *slot = __gfn_to_memslot(__kvm_memslots(kvm, address_space), gfn);

	if (slot) {
		write_lock(&kvm->mmu_lock);
		result = kvm_mmu_slot_gfn_write_protect(kvm, slot, gfn, PG_LEVEL_4K);
		if (result)
			kvm_flush_remote_tlbs_gfn(kvm, gfn, PG_LEVEL_4K);
		write_unlock(&kvm->mmu_lock);
	}
	srcu_read_unlock(&kvm->srcu, index);
	return result;
}

/* As when the guest changes the memory type of frames. */
void worker_zap_range(u32 vm, u64 gfn, u64 pages) { kvm_zap_gfn_range(worker_private_data(vm), gfn, gfn + pages); }

/* A write of the kernel's own, by no vCPU. */
int worker_write_guest(u32 vm, u64 gpa, void *data, u64 bytes)
{
	struct kvm *kvm = worker_private_data(vm);
	int index = srcu_read_lock(&kvm->srcu);
	int result = kvm_write_guest(kvm, gpa, data, bytes);

	srcu_read_unlock(&kvm->srcu, index);
	return result;
}

/* kvm-nx-lpage-recovery: a thread that never runs by itself. */
struct vhost_task {
	bool (*function)(void *);
	void *argument;
};
#define RECOVERIES 16
static struct vhost_task *recoveries[RECOVERIES];

struct vhost_task *vhost_task_create(bool (*function)(void *), void (*killed)(void *), void *argument, const char *name)
{
	struct vhost_task *task = worker_alloc(sizeof(*task), true);
	int i;

	task->function = function;
	task->argument = argument;
	for (i = 0; i < RECOVERIES; i++)
		if (!recoveries[i]) {
			recoveries[i] = task;
			break;
		}
	return task;
}

void vhost_task_stop(struct vhost_task *task)
{
	int i;

	for (i = 0; i < RECOVERIES; i++)
		if (recoveries[i] == task)
			recoveries[i] = NULL;
	worker_free(task);
}

/* Let its period pass, and let it run once. */
bool worker_recover_huge_pages(u32 vm)
{
	int i;

	for (i = 0; i < RECOVERIES; i++)
		if (recoveries[i] && recoveries[i]->argument == worker_private_data(vm)) {
			jiffies += 2 * 3600 * HZ;
			recoveries[i]->function(recoveries[i]->argument);
			return true;
		}
	return false;
}

/* Of mmu.c: entries of a list (PTE_LIST_EXT); a bit of the head that is a lock since 6.14. */
#define PTE_LIST_ENTRIES 14
#define RMAP_LOCKED 2ul

/* The list of an rmap head: private to mmu.c, so its layout is told here; that of 6.12 to 7.3. */
struct worker_rmap_list {
	struct worker_rmap_list *more;
	u32 here, in_tails;
	u64 *sptes[PTE_LIST_ENTRIES];
};

struct worker_rmap {
	u64 gfn, spte;
	u32 level, slot;
};

static u32 list(struct kvm_rmap_head *head, struct worker_rmap *out, struct worker_rmap entry, u32 n, u32 max)
{
	unsigned long value = *(unsigned long *)head & ~RMAP_LOCKED;
	struct worker_rmap_list *list = (void *)(value & ~1ul);
	u32 i;

	if (!value)
		return n;
	if (!(value & 1)) {
		entry.spte = __pa(value);
		if (n < max)
			out[n] = entry;
		return n + 1;
	}
	for (; list; list = list->more)
		for (i = 0; i < list->here && i < PTE_LIST_ENTRIES; i++, n++) {
			entry.spte = __pa(list->sptes[i]);
			if (n < max)
				out[n] = entry;
		}
	return n;
}

/* All of a memslot's rmap. How many entries there are; no more than max are written. */
u32 worker_rmap(u32 vm, u32 id, struct worker_rmap *out, u32 max)
{
	struct kvm *kvm = worker_private_data(vm);
	struct kvm_memory_slot *slot = id_to_memslot(__kvm_memslots(kvm, id >> 16), id & 0xffff);
	u32 n = 0;
	int level;

	if (!slot)
		return 0;
	for (level = PG_LEVEL_4K; level <= KVM_MAX_HUGEPAGE_LEVEL; level++) {
		u64 pages = KVM_PAGES_PER_HPAGE(level), gfn = slot->base_gfn;
		struct kvm_rmap_head *head = slot->arch.rmap[level - PG_LEVEL_4K];

		if (!head)
			continue;
		for (; gfn < slot->base_gfn + slot->npages; gfn = (gfn & ~(pages - 1)) + pages) {
			struct worker_rmap entry = { gfn & ~(pages - 1), 0, level, id };
			u64 index = (gfn >> KVM_HPAGE_GFN_SHIFT(level)) - (slot->base_gfn >> KVM_HPAGE_GFN_SHIFT(level));

			n = list(&head[index], out, entry, n, max);
		}
	}
	return n;
}
