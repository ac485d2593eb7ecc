/* SPDX-License-Identifier: GPL-2.0-only */
/* What the worker (Rust) and the part that the kernel's headers must compile (C) know of each other. */
#pragma once
#include <linux/types.h>

/* Answered by the worker. */
extern void *worker_alloc(size_t size, bool zeroed);
extern void worker_free(const void *object);
extern void *worker_alloc_pages(unsigned int order, bool zeroed);
extern void worker_free_pages(void *pages, unsigned int order);
extern u64 worker_alloc_percpu(size_t size, size_t align);
extern int worker_vsnprintf(char *to, size_t size, const char *format, va_list arguments);
extern void worker_log(const char *text, long bytes);
extern void worker_warning_text(const char *text, long bytes);
extern void worker_warning(const char *file, u32 line);
extern void worker_die(const char *why);
extern void worker_static_call(void *trampoline, void *function);
extern void worker_jump_label(void *key);

extern void worker_tracked(u64 gpa, u32 bytes);

/* Why the guest is left. */
enum worker_exit {
	WORKER_HALT,
	WORKER_INTERRUPT,
	WORKER_NESTED_FAULT,
	WORKER_PAGE_FAULT,
	WORKER_WRITE_CR3,
	WORKER_INVALIDATE_PAGE,
	WORKER_SHUTDOWN,
};

/* Kinds of nested tables. */
enum worker_nested { WORKER_NO_TDP, WORKER_NPT, WORKER_EPT, WORKER_EPT_ACCESSED_DIRTY };

/* What the processor takes from a control block, and what is put there. */
struct worker_entry {
	u64 nested_root, tag, cr0, cr3, cr4, efer, rip, rax, rbx, rcx, injected;
	u32 vcpu, tlb_control, nested, cpl;
	u64 code, address;
	u32 exit, advances;
	u8 bytes[15], bytes_len;
};
extern void worker_enter_guest(struct worker_entry *entry);
