// SPDX-License-Identifier: GPL-2.0-only
// Tasks: one for each thread of the worker, with the preempt notifiers by which KVM learns that a vCPU is scheduled out and in.
#include <linux/kernel.h>
#include <linux/kthread.h>
#include <linux/pid.h>
#include <linux/preempt.h>
#include <linux/rcuwait.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/version.h>
#include <linux/workqueue.h>
#include <asm/fpu/api.h>
#include <asm/fpu/types.h>
#include "worker.h"

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 15, 0)
#define CURRENT_TASK pcpu_hot.current_task
#define PREEMPT_COUNT pcpu_hot.preempt_count
#else
#define CURRENT_TASK current_task
#define PREEMPT_COUNT __preempt_count
#endif

struct mm_struct *worker_mm;
static struct pid *process;

struct task_struct *worker_new_task(void)
{
	struct task_struct *task = worker_alloc(sizeof(*task), true);

	task->mm = task->active_mm = worker_mm;
	task->thread_pid = process;
	task->pid = task->tgid = 1;
	refcount_set(&task->usage, 1);
	task->group_leader = task;
	task->signal = worker_alloc(sizeof(*task->signal), true);
	task->sighand = worker_alloc(sizeof(*task->sighand), true);
	return task;
}

struct task_struct *worker_init_tasks(void *pgd)
{
	struct task_struct *task;

	worker_mm = worker_alloc(sizeof(*worker_mm) + cpumask_size(), true);
	atomic_set(&worker_mm->mm_count, 1);
	atomic_set(&worker_mm->mm_users, 1);
	worker_mm->pgd = pgd;
	process = worker_alloc(sizeof(*process) + sizeof(struct upid), true);
	/* Never the last: the process lives as long as the worker. */
	refcount_set(&process->count, 1 << 20);
	task = worker_new_task();
	this_cpu_write(CURRENT_TASK, task);
	/* PREEMPT_NEED_RESCHED is inverted: nothing has to be rescheduled. */
	this_cpu_write(PREEMPT_COUNT, PREEMPT_NEED_RESCHED);
	return task;
}

/* context_switch(): what preempt_notifiers are told. */
void worker_switch_task(struct task_struct *next)
{
	struct task_struct *task = current;
	struct preempt_notifier *notifier;

	hlist_for_each_entry(notifier, &task->preempt_notifiers, link)
		notifier->ops->sched_out(notifier, next);
	this_cpu_write(CURRENT_TASK, next);
	hlist_for_each_entry(notifier, &next->preempt_notifiers, link)
		notifier->ops->sched_in(notifier, 0);
}

void preempt_notifier_inc(void) { }
void preempt_notifier_dec(void) { }
void preempt_notifier_register(struct preempt_notifier *notifier) { hlist_add_head(&notifier->link, &current->preempt_notifiers); }
void preempt_notifier_unregister(struct preempt_notifier *notifier) { hlist_del(&notifier->link); }

pid_t pid_vnr(struct pid *pid) { return 1; }
struct task_struct *get_pid_task(struct pid *pid, enum pid_type type) { return NULL; }
struct pid *get_task_pid(struct task_struct *task, enum pid_type type)
{
	refcount_inc(&task->thread_pid->count);
	return task->thread_pid;
}
void put_pid(struct pid *pid)
{
	if (pid)
		refcount_dec(&pid->count);
}

/* A signal is how an access that gets nowhere is given up. */
void worker_signal(void) { set_tsk_thread_flag(current, TIF_SIGPENDING); }
int xfer_to_guest_mode_handle_work(void)
{
	clear_tsk_thread_flag(current, TIF_SIGPENDING);
	return -EINTR;
}

void finish_rcuwait(struct rcuwait *wait)
{
	rcu_assign_pointer(wait->task, NULL);
	__set_current_state(TASK_RUNNING);
}

/* Work that is queued runs when it is waited for, or when the worker says so. */
#define WORKS 64
static struct work_struct *works[WORKS];
static unsigned int works_queued;

bool queue_work_on(int cpu, struct workqueue_struct *queue, struct work_struct *work)
{
	unsigned int i;

	for (i = 0; i < works_queued; i++)
		if (works[i] == work)
			return false;
	if (works_queued == WORKS)
		worker_die("more work is queued than expected");
	works[works_queued++] = work;
	return true;
}

void worker_run_works(void)
{
	while (works_queued) {
		struct work_struct *work = works[--works_queued];

		work->func(work);
	}
}

void __flush_workqueue(struct workqueue_struct *queue) { worker_run_works(); }
bool flush_work(struct work_struct *work)
{
	worker_run_works();
	return true;
}
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 15, 0)
#undef alloc_workqueue
#define alloc_workqueue alloc_workqueue_noprof
#endif
struct workqueue_struct *alloc_workqueue(const char *name, unsigned int flags, int max, ...) { return worker_alloc(64, true); }
void destroy_workqueue(struct workqueue_struct *queue)
{
	worker_run_works();
	worker_free(queue);
}

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 14, 0)
struct kthread_worker *kthread_create_worker(unsigned int flags, const char name[], ...)
#else
struct kthread_worker *kthread_create_worker_on_node(unsigned int flags, int node, const char name[], ...)
#endif
{
	struct kthread_worker *worker = worker_alloc(sizeof(*worker), true);

	worker->task = current;
	return worker;
}
void kthread_destroy_worker(struct kthread_worker *worker) { worker_free(worker); }

/* The guest's FPU state is never loaded. */
bool fpu_alloc_guest_fpstate(struct fpu_guest *guest)
{
	struct fpstate *state = worker_alloc(sizeof(*state) + 2 * PAGE_SIZE, true);

	state->size = PAGE_SIZE;
	state->is_valloc = state->is_guest = true;
	guest->fpstate = state;
	guest->xfeatures = XFEATURE_MASK_FPSSE;
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 16, 0)
	guest->perm = XFEATURE_MASK_FPSSE;
#endif
	guest->uabi_size = PAGE_SIZE;
	return true;
}
void fpu_free_guest_fpstate(struct fpu_guest *guest)
{
	worker_free(guest->fpstate);
	guest->fpstate = NULL;
}
int fpu_swap_kvm_fpstate(struct fpu_guest *guest, bool enter)
{
	guest->fpstate->in_use = enter;
	return 0;
}
