// SPDX-License-Identifier: GPL-2.0-only
// The host's side of an mmu_notifier: who is registered, and calls of it.
#include <linux/kernel.h>
#include <linux/mmu_notifier.h>
#include "worker.h"

extern struct mm_struct *worker_mm;

#define NOTIFIERS 64
static struct mmu_notifier *notifiers[NOTIFIERS];

int mmu_notifier_register(struct mmu_notifier *notifier, struct mm_struct *mm)
{
	int i;

	notifier->mm = mm;
	for (i = 0; i < NOTIFIERS; i++)
		if (!notifiers[i]) {
			notifiers[i] = notifier;
			return 0;
		}
	return -ENOMEM;
}

void mmu_notifier_unregister(struct mmu_notifier *notifier, struct mm_struct *mm)
{
	int i;

	for (i = 0; i < NOTIFIERS; i++)
		if (notifiers[i] == notifier)
			notifiers[i] = NULL;
	if (notifier->ops->release)
		notifier->ops->release(notifier, mm);
}

#define for_each_notifier(notifier, i) \
	for (i = 0; i < NOTIFIERS; i++) \
		if ((notifier = notifiers[i]))

void worker_invalidate(unsigned long start, unsigned long end, bool begin)
{
	struct mmu_notifier_range range = {
		.start = start, .end = end, .mm = worker_mm,
		.event = MMU_NOTIFY_UNMAP, .flags = MMU_NOTIFIER_RANGE_BLOCKABLE,
	};
	struct mmu_notifier *notifier;
	int i;

	for_each_notifier(notifier, i) {
		if (begin)
			notifier->ops->invalidate_range_start(notifier, &range);
		else
			notifier->ops->invalidate_range_end(notifier, &range);
	}
}

/* 0: clear_flush_young, 1: clear_young, 2: test_young of the first page. */
int worker_age(unsigned long start, unsigned long end, int how)
{
	struct mmu_notifier *notifier;
	int i, young = 0;

	for_each_notifier(notifier, i)
		young |= how == 0 ? notifier->ops->clear_flush_young(notifier, worker_mm, start, end) :
			 how == 1 ? notifier->ops->clear_young(notifier, worker_mm, start, end) :
				    notifier->ops->test_young(notifier, worker_mm, start);
	return young;
}
