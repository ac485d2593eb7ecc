/*
 * The runtime of the program below: a VM of /dev/kvm whose guest runs at CPL 3, one access for each KVM_RUN.
 * An old C library needs -pthread.
 * Exit status: 0 PASS, 1 FAIL, 3 SKIPPED: this host lacks what the program needs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MADV_COLD
#define MADV_COLD 20
#define MADV_PAGEOUT 21
#endif
#define COLLAPSE 25
#define GUARD_INSTALL 102
#define GUARD_REMOVE 103

#define PAGE 4096UL
#define HUGE (512 * PAGE)
#define FRAMES 64
#define HOST_PAGES 64
#define SLOTS 8
#define NAMES 8
#define OWN_GFN 0x4000UL
#define TABLE_GFN 0x4100UL
#define ENTRY 0x67UL /* present, writable, user, accessed, dirty */
#define NONE (~0UL)

enum { READ, WRITE, EXECUTE };
enum { DONTNEED, MREMAP, MUNMAP, MPROTECT, MPROTECT_READ, PUNCH_HOLE, FORK, COLLAPSED, PAGEOUT, COLD, GUARD, UFFD_WP, UFFD_COPY };

static int kvm, vm, vcpus[4], file = -1, failed;
static size_t run_bytes;
static struct kvm_run *runs[4];
static struct kvm_sregs sregs[4];
static struct kvm_vcpu_events events[4];
static uint8_t *host, *own, *tables;
static struct { uint64_t gfn, pages, hva; uint32_t flags; } slots[SLOTS];
static uint32_t identities[HOST_PAGES];
static uint64_t values;
static uint64_t awaited = NONE; /* the page that a held fault waits for; a thread that touches it waits, too */

static void die(const char *what)
{
	printf("SKIPPED: cannot %s: %s\n", what, strerror(errno));
	exit(3);
}

static long must(long result, const char *what)
{
	if (result < 0)
		die(what);
	return result;
}

/* Memory on a huge-page boundary. */
static uint8_t *reserve(size_t bytes)
{
	uint8_t *at = mmap(NULL, bytes + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		die("map memory");
	return (uint8_t *)(((uintptr_t)at + HUGE - 1) & ~(HUGE - 1));
}

/* The address of a host page in one of its mappings. */
static uint8_t *hva(int mapping, uint64_t page)
{
	return host + mapping * HUGE + page * PAGE;
}

static void write_identity(uint8_t *at, uint32_t identity)
{
	uint8_t stub[8] = { 0xb8, identity, identity >> 8, identity >> 16, identity >> 24, 0xc3, 0x90, 0x90 };
	memcpy(at, stub, sizeof(stub)); /* mov eax, identity; ret */
	*(volatile uint64_t *)(at + 8) = identity;
}

static void stamp(uint64_t page, uint32_t identity)
{
	write_identity(hva(0, page), identity);
	identities[page] = identity;
}

static uint64_t gpa_of(uint64_t gfn, int alias)
{
	uint64_t gpa = gfn * PAGE;
	for (size_t i = 0; i < sizeof(STOLEN) / sizeof(*STOLEN); i++)
		if (alias >> i & 1)
			gpa |= 1UL << STOLEN[i];
	return gpa;
}

static void region(uint32_t slot, uint32_t flags, uint64_t gpa, void *at, uint64_t bytes)
{
	struct kvm_userspace_memory_region region = { slot, flags, gpa, bytes, (uintptr_t)at };
	must(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "set a memslot");
}

/* The alias of the GPA to which the guest's page tables map a name, and the address space of the name. */
static int walked(int name)
{
	return GUEST_PTES ? 0 : SMM ? name & ~1 : name;
}

static int space_of(int name)
{
	return SMM ? name & 1 : 0;
}

static uint32_t slot_of(int id, int name)
{
	return (id * NAMES + name) | space_of(name) << 16;
}

/* Parts that depend on the alias method: the dirty log and private memory. */
static void log_open(void), log_of_vcpu(int vcpu), log_changes(int id, int forget), log_clear(int id, uint64_t bits);
static uint64_t log_get(int id);
static void set_protected(int id), forget_protected(int id, int keep), unmap_private(uint64_t page, uint64_t pages);
static int is_protected(int id), is_private(int id, uint64_t page);

static void set_slot(int id)
{
	if (is_protected(id)) {
		set_protected(id);
		return;
	}
	for (int name = 0; name < EACH; name++)
		region(slot_of(id, name), slots[id].flags, gpa_of(slots[id].gfn, walked(name)),
		       hva(name % MAPPINGS, slots[id].hva), slots[id].pages * PAGE);
}

static void slot_gone(int id, int keep)
{
	for (int name = 0; name < EACH; name++)
		region(slot_of(id, name), 0, 0, NULL, 0);
	if (is_protected(id))
		forget_protected(id, keep);
	slots[id].pages = 0;
}

static void slot_create(int id, uint64_t gfn, uint64_t pages, uint64_t first, uint32_t flags)
{
	log_changes(id, 1);
	slots[id].gfn = gfn, slots[id].pages = pages, slots[id].hva = first, slots[id].flags = flags;
	set_slot(id);
}

static void slot_delete(int id)
{
	log_changes(id, 1);
	slot_gone(id, 0);
}

/* KVM refuses to move a memslot with a guest_memfd: delete it and create it again, with its guest_memfd. */
static void slot_move(int id, uint64_t gfn)
{
	uint64_t pages = slots[id].pages;
	log_changes(id, 0);
	if (is_protected(id))
		slot_gone(id, 1);
	slots[id].gfn = gfn, slots[id].pages = pages;
	set_slot(id);
}

/* KVM also refuses to change whether a memslot is read-only or has a guest_memfd. */
static void slot_flags(int id, uint32_t flags)
{
	uint64_t pages = slots[id].pages;
	if ((slots[id].flags ^ flags) & KVM_MEM_READONLY || (PROTECTED && !slots[id].flags != !flags))
		slot_gone(id, 0);
	slot_create(id, slots[id].gfn, pages, slots[id].hva, flags);
}

static int discard(int mapping, uint64_t page, uint64_t pages)
{
	return file < 0 ? madvise(hva(mapping, page), pages * PAGE, MADV_DONTNEED) :
	       fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, page * PAGE, pages * PAGE);
}

/* Ways to reclaim pages. Returns what this host cannot do, or NULL. */
#define TRY(result, what) do { if ((result) < 0) return what; } while (0)

static const char *copy_on_write(uint64_t page, uint64_t pages)
{
	pid_t child = fork();
	TRY(child, "fork");
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	for (uint64_t at = page; at < page + pages; at++) {
		volatile uint64_t *last = (void *)(hva(0, at + 1) - 8);
		*last = *last;
	}
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	return NULL;
}

static const char *with_userfaultfd(int fd, int how, int mapping, uint64_t page)
{
	static uint8_t zeros[PAGE];
	uintptr_t at = (uintptr_t)hva(mapping, page);
	struct uffdio_api api = { .api = UFFD_API, .features = 1 | 1 << 12 };
	struct uffdio_register reg = { .range = { at, PAGE }, .mode = how == UFFD_WP ? 2 : 1 };
	TRY(ioctl(fd, UFFDIO_API, &api), "use a userfaultfd");
	TRY(ioctl(fd, UFFDIO_REGISTER, &reg), "register with a userfaultfd");
	if (how == UFFD_WP) {
		struct uffdio_writeprotect on = { .range = { at, PAGE }, .mode = 1 }, off = { .range = { at, PAGE } };
		TRY(ioctl(fd, UFFDIO_WRITEPROTECT, &on), "write-protect");
		TRY(ioctl(fd, UFFDIO_WRITEPROTECT, &off), "release");
	} else {
		struct uffdio_copy copy = { .dst = at, .src = (uintptr_t)zeros, .len = PAGE };
		TRY(discard(mapping, page, 1), "discard a page");
		TRY(ioctl(fd, UFFDIO_COPY, &copy), "copy a page in");
	}
	return NULL;
}

static const char *userfault(int how, int mapping, uint64_t page)
{
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	TRY(fd, "make a userfaultfd");
	const char *lacking = with_userfaultfd(fd, how, mapping, page);
	int why = errno;
	close(fd);
	errno = why;
	return lacking;
}

static void *map(void *at, int flags, uint64_t page, uint64_t pages)
{
	flags |= file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	void *mapped = mmap(at, pages * PAGE, PROT_READ | PROT_WRITE, flags, file, file < 0 ? 0 : page * PAGE);
	if (mapped == MAP_FAILED)
		die("map pages");
	return mapped;
}

static uint64_t gone; /* pages with PROT_NONE, one bit each */

static void protect(uint64_t page, uint64_t pages, int rights)
{
	for (int mapping = 0; mapping < MAPPINGS; mapping++)
		must(mprotect(hva(mapping, page), pages * PAGE, rights), "protect pages");
	for (uint64_t n = page; n < page + pages; n++)
		gone = rights == PROT_NONE ? gone | 1UL << n : gone & ~(1UL << n);
}

static void prot_none(uint64_t page, uint64_t pages)
{
	protect(page, pages, PROT_NONE);
}

static const char *take(int how, uint64_t page, uint64_t pages)
{
	size_t bytes = pages * PAGE;
	const char *lacking = NULL;
	if (gone)
		protect(page, pages, PROT_READ | PROT_WRITE);
	if (gone && (how == FORK || how == COLLAPSED)) {
		errno = EACCES;
		return "touch all pages";
	}
	for (int mapping = 0; mapping < MAPPINGS; mapping++) {
		void *at = hva(mapping, page);
		switch (how) {
		case DONTNEED: TRY(madvise(at, bytes, MADV_DONTNEED), "discard pages"); break;
		case COLD: TRY(madvise(at, bytes, MADV_COLD), "advise"); break;
		case PAGEOUT: TRY(madvise(at, bytes, MADV_PAGEOUT), "page out"); break;
		case GUARD:
			TRY(madvise(at, bytes, GUARD_INSTALL), "install guards");
			TRY(madvise(at, bytes, GUARD_REMOVE), "remove guards");
			break;
		case MREMAP:
			if (mremap(map(NULL, 0, page, pages), bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, at) == MAP_FAILED)
				return "move pages";
			break;
		case MUNMAP: map(at, MAP_FIXED, page, pages); break;
		case MPROTECT:
		case MPROTECT_READ:
			TRY(mprotect(at, bytes, how == MPROTECT ? PROT_NONE : PROT_READ), "protect pages");
			TRY(mprotect(at, bytes, PROT_READ | PROT_WRITE), "unprotect pages");
			break;
		/* The kernel may decline; the pages then stay. */
		case COLLAPSED: (void)!madvise(hva(mapping, 0), HUGE, COLLAPSE); break;
		case UFFD_WP:
		case UFFD_COPY:
			/* The copy goes to the file, and so to all of its mappings. */
			for (uint64_t n = 0; n < pages && !lacking && (how == UFFD_WP || !mapping); n++)
				lacking = userfault(how, mapping, page + n);
			break;
		}
	}
	if (how == PUNCH_HOLE) {
		errno = EBADF;
		TRY(file, "punch a hole into private memory");
		TRY(discard(0, page, pages), "punch a hole");
	}
	return how == FORK ? copy_on_write(page, pages) : lacking;
}

/* Reclaims pages and gives them new identities. If this host lacks the way, discards them, which promises the guest the same. */
static void unmap(int op, int how, uint64_t page, uint64_t pages, uint32_t identity)
{
	const char *lacking = take(how, page, pages);
	if (lacking) {
		printf("op %d: cannot %s: %s; the pages are discarded instead\n", op, lacking, strerror(errno));
		for (int mapping = 0; mapping < MAPPINGS; mapping++)
			must(discard(mapping, page, pages), "discard pages");
	} else if ((how == MREMAP || how == MUNMAP) && awaited - page < pages) {
		awaited = NONE; /* a new mapping replaced the page, and no userfaultfd watches it */
	}
	for (uint64_t n = 0; n < pages; n++)
		if (page + n != awaited)
			stamp(page + n, identity + n);
	unmap_private(page, pages);
}

/* An op that not every KVM offers. It does not change what the guest finds. */
static void left_out(int op)
{
	printf("op %d: left out\n", op);
}

/* Completes an instruction that exited. The next entry would do it and overwrite registers that were set in between. */
static void settle(int vcpu)
{
	runs[vcpu]->immediate_exit = 1;
	(void)!ioctl(vcpus[vcpu], KVM_RUN, 0);
	runs[vcpu]->immediate_exit = 0;
}

static void complain(int op, const char *found, uint64_t value, const char *expected)
{
	printf("op %d: found %s %#lx, expected %s\n", op, found, (unsigned long)value, expected);
	failed = 1;
}

/* With guest-ptes: entries of 4 KiB, of 2 MiB, and read-only ones for accesses that do not write. */
static uint64_t linear_of(int kind, uint64_t gfn, int alias)
{
	uint64_t small = (512 + alias * FRAMES + gfn - BASE) * PAGE, half = gfn / 512 - BASE / 512;
	if (GUEST_PTES && alias % 2)
		return (2UL << 30) + (2 * alias + half) * HUGE + gfn % 512 * PAGE;
	return GUEST_PTES && kind != WRITE ? (1UL << 30) + small : small;
}

/* Prepares a vCPU to make an access. */
static void prepare(int vcpu, int kind, uint64_t gfn, int alias, uint64_t offset, uint64_t value)
{
	static const uint64_t entry[] = { [READ] = 0x00, [WRITE] = 0x10, [EXECUTE] = 0x20 };
	uint64_t page = linear_of(kind, gfn, alias);
	struct kvm_mp_state runnable = { KVM_MP_STATE_RUNNABLE };
	struct kvm_regs regs = {
		.rip = entry[kind], .rsp = 3 * PAGE, .rflags = 0x3002, .rax = value, .rsi = page,
		.rdi = kind == WRITE ? page + offset : page,
	};
	settle(vcpu);
	events[vcpu].smi.smm = space_of(alias);
	must(ioctl(vcpus[vcpu], KVM_SET_MP_STATE, &runnable), "wake a vCPU");
	must(ioctl(vcpus[vcpu], KVM_SET_VCPU_EVENTS, &events[vcpu]), "reset a vCPU");
	must(ioctl(vcpus[vcpu], KVM_SET_SREGS, &sregs[vcpu]), "set special registers");
	must(ioctl(vcpus[vcpu], KVM_SET_REGS, &regs), "set registers");
}

/* Returns 0 or errno. */
static int run(int vcpu)
{
	for (;;) {
		if (!ioctl(vcpus[vcpu], KVM_RUN, 0))
			return 0;
		if (errno != EINTR && errno != EAGAIN)
			return errno;
	}
}

static uint64_t word_of(int op)
{
	return 1024 + 8 * (op % 256);
}

/* Judges an access. It must have found the page with identity `memory`, or exited with any name of frame `mmio`. */
static void judge(int op, int vcpu, int kind, uint64_t gfn, int alias, int result, uint64_t memory, uint64_t mmio, int error,
		  const char *expected)
{
	struct kvm_run *run = runs[vcpu];
	struct kvm_regs regs;
	errno = result;
	if (result && result != EFAULT)
		die("run a vCPU");
	if (result == 0 && run->exit_reason == KVM_EXIT_IO && (run->flags & KVM_RUN_X86_SMM) != space_of(alias))
		complain(op, "flags", run->flags, "SMM where the name needs it");
	if (result == 0 && run->exit_reason == KVM_EXIT_MMIO) {
		uint64_t gpa = run->mmio.phys_addr, base = gpa;
		for (size_t i = 0; i < sizeof(STOLEN) / sizeof(*STOLEN); i++)
			base &= ~(1UL << STOLEN[i]);
		if (mmio == NONE || base / PAGE != mmio)
			complain(op, "an exit for gpa", gpa, expected);
	} else if (result == 0 && run->exit_reason == KVM_EXIT_IO) {
		must(ioctl(vcpus[vcpu], KVM_GET_REGS, &regs), "get registers");
		uint32_t found = regs.rax;
		if (memory == NONE || found != memory)
			complain(op, "page", found, expected);
		for (int id = 0; kind == WRITE && memory != NONE && id < SLOTS; id++)
			if (slots[id].pages && gfn - slots[id].gfn < slots[id].pages && !is_private(id, gfn - slots[id].gfn) &&
			    *(volatile uint64_t *)(hva(0, slots[id].hva + gfn - slots[id].gfn) + word_of(op)) != values)
				complain(op, "a lost write of", values, expected);
	} else if (!error) {
		complain(op, "a failed access, exit reason", run->exit_reason, expected);
	}
}

static void write_to(int op, int vcpu, uint64_t gfn, int alias, uint64_t memory, uint64_t mmio, int error, const char *expected);

static void access_(int op, int vcpu, int kind, uint64_t gfn, int alias, uint64_t memory, uint64_t mmio, int error,
		    const char *expected)
{
	if (IOEVENTFDS && kind == WRITE) {
		write_to(op, vcpu, gfn, alias, memory, mmio, error, expected);
		return;
	}
	prepare(vcpu, kind, gfn, alias, word_of(op), ++values);
	judge(op, vcpu, kind, gfn, alias, run(vcpu), memory, mmio, error, expected);
}

/* Judges the dirty log of a memslot, the union over its names. */
static void dirty_get(int op, int id, uint64_t at_least, uint64_t at_most, const char *expected)
{
	uint64_t dirty = log_get(id);
	dirty <<= slots[id].gfn - BASE;
	if ((dirty & at_least) != at_least || dirty & ~at_most)
		complain(op, "dirty frames", dirty, expected);
}

static void dirty_clear(int id, uint64_t gfn, uint64_t pages)
{
	log_clear(id, (pages < 64 ? (1UL << pages) - 1 : NONE) << (gfn - slots[id].gfn));
}

static void entry_at(int table, int index, uint64_t gpa)
{
	((uint64_t *)(tables + table * PAGE))[index] = gpa | ENTRY;
}

/* Page tables: root, pointer table, directory, leaves of the guest's own pages, leaves of all names; a read-only directory; leaves of 2 MiB. */
static void fill_tables(void)
{
	for (int table = 0; table < 3; table++)
		entry_at(table, 0, (TABLE_GFN + table + 1) * PAGE);
	entry_at(2, 1, (TABLE_GFN + 4) * PAGE);
	entry_at(1, 1, (TABLE_GFN + 5) * PAGE);
	entry_at(1, 2, (TABLE_GFN + 6) * PAGE);
	for (int page = 0; page < 3; page++)
		entry_at(3, page, (OWN_GFN + page) * PAGE);
	entry_at(5, 1, (TABLE_GFN + 4) * PAGE);
	((uint64_t *)(tables + 5 * PAGE))[1] &= ~2UL;
	for (int alias = 0; alias < ALIASES; alias++) {
		for (int frame = 0; frame < FRAMES; frame++)
			entry_at(4, alias * FRAMES + frame, gpa_of(BASE + frame, walked(alias)));
		for (int half = 0; half < 2; half++)
			entry_at(6, 2 * alias + half, gpa_of((BASE / 512 + half) * 512, walked(alias)) | 0x80);
	}
}

/* The guest's own pages: code, a TSS of zeros, a stack. */
static void set_up(void)
{
	static const uint8_t code[0x30] = {
		[0x00] = 0x8b, 0x47, 0x08, 0xe6, 0x10, /* mov eax, [rdi+8]; out 0x10, al */
		[0x10] = 0x48, 0x89, 0x07, 0x8b, 0x46, 0x08, 0xe6, 0x10, /* mov [rdi], rax; mov eax, [rsi+8]; out 0x10, al */
		[0x20] = 0xff, 0xd7, 0xe6, 0x10, /* call rdi; out 0x10, al */
	};
	static struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 entries[256]; } cpuid = { .head.nent = 256 };
	struct kvm_enable_cap quirks = { .cap = 213, .args = { 0x80 } };
	kvm = must(open("/dev/kvm", O_RDWR | O_CLOEXEC), "open /dev/kvm");
	vm = must(ioctl(kvm, KVM_CREATE_VM, PROTECTED), PROTECTED ? "create a software-protected VM" : "create a VM");
	must(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid), "get the supported CPUID");
	log_open();
	errno = EOPNOTSUPP;
	if (SMM && ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_MULTI_ADDRESS_SPACE) < 2)
		die("use memslots of system management mode");
	if (ZAP_SLOT)
		(void)!ioctl(vm, KVM_ENABLE_CAP, &quirks); /* zap only the memslot that goes */
	run_bytes = must(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "get the size of a vCPU mapping");
	if (MAPPINGS > 1) {
		file = must(memfd_create("guest", MFD_CLOEXEC), "make a memfd");
		must(ftruncate(file, HUGE), "set the size of a memfd");
	}
	host = reserve(MAPPINGS * HUGE), own = reserve(HUGE), tables = reserve(HUGE);
	for (int mapping = 0; mapping < MAPPINGS; mapping++)
		map(hva(mapping, 0), MAP_FIXED, 0, 512);
	for (int page = 0; page < HOST_PAGES; page++)
		stamp(page, page + 1);
	memcpy(own, code, sizeof(code));
	fill_tables();
	for (int space = 0; space <= SMM; space++) {
		region(SLOTS * NAMES | space << 16, 0, OWN_GFN * PAGE, own, 3 * PAGE);
		region((SLOTS * NAMES + 1) | space << 16, 0, TABLE_GFN * PAGE, tables, 7 * PAGE);
	}
	for (int n = 0; n < VCPUS; n++) {
		struct kvm_segment flat = { .limit = ~0U, .present = 1, .dpl = 3, .s = 1, .g = 1, .selector = 0x2b, .type = 3 };
		vcpus[n] = must(ioctl(vm, KVM_CREATE_VCPU, n), "create a vCPU");
		runs[n] = mmap(NULL, run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpus[n], 0);
		if (runs[n] == MAP_FAILED)
			die("map a vCPU");
		log_of_vcpu(n);
		must(ioctl(vcpus[n], KVM_SET_CPUID2, &cpuid), "set the CPUID");
		must(ioctl(vcpus[n], KVM_GET_SREGS, &sregs[n]), "get special registers");
		must(ioctl(vcpus[n], KVM_GET_VCPU_EVENTS, &events[n]), "get events");
		sregs[n].cr0 = 0x80000033, sregs[n].cr3 = TABLE_GFN * PAGE, sregs[n].cr4 = 0x20, sregs[n].efer = 0x500;
		sregs[n].ds = sregs[n].es = sregs[n].fs = sregs[n].gs = sregs[n].ss = sregs[n].cs = flat;
		sregs[n].ss.db = 1, sregs[n].cs.l = 1, sregs[n].cs.type = 11, sregs[n].cs.selector = 0x33;
		sregs[n].tr = (struct kvm_segment){ .base = PAGE, .limit = 0xfff, .selector = 0x40, .type = 11, .present = 1 };
		sregs[n].ldt = (struct kvm_segment){ .unusable = 1 };
		sregs[n].gdt.limit = sregs[n].idt.limit = 0;
	}
}

static void program(void);

int main(void)
{
	set_up();
	program();
	puts(failed ? "FAIL" : "PASS");
	return failed;
}
