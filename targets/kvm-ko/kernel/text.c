// SPDX-License-Identifier: GPL-2.0-only
// Text: the log, and functions whose arguments vary in number.
#include <linux/kernel.h>
#include <linux/bug.h>
#include <linux/printk.h>
#include <linux/version.h>
#include "worker.h"

/* The arguments that come after `last`, as `format` says. */
#define FORMAT(text, last) ({ \
	va_list arguments; \
	int bytes; \
	va_start(arguments, last); \
	bytes = worker_vsnprintf(text, sizeof(text), format, arguments); \
	va_end(arguments); \
	min_t(int, bytes, sizeof(text) - 1); })

int _printk(const char *format, ...)
{
	char text[512];
	int bytes = FORMAT(text, format);

	worker_log(text, bytes);
	return bytes;
}

void __warn_printk(const char *format, ...)
{
	char text[512];
	int bytes = FORMAT(text, format);

	worker_warning_text(text, bytes);
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)
/* WARN() with a format is a static call. */
void worker_warn_trap(struct bug_entry *bug, ...)
{
	const char *format = (const char *)&bug->format_disp + bug->format_disp;
	char text[512];
	int bytes = FORMAT(text, bug);

	worker_warning_text(text, bytes);
	worker_warning((const char *)&bug->file_disp + bug->file_disp, bug->line);
}
asm(".globl __SCT__WARN_trap\n.set __SCT__WARN_trap, worker_warn_trap\n");
#endif

int snprintf(char *to, size_t size, const char *format, ...)
{
	va_list arguments;
	int bytes;

	va_start(arguments, format);
	bytes = worker_vsnprintf(to, size, format, arguments);
	va_end(arguments);
	return bytes;
}

void __stack_chk_fail(void) { worker_die("a stack protector was overwritten"); }
void __fortify_panic(const u8 reason, const size_t available, const size_t size) { worker_die("a fortified copy is too large"); }
