#include <poll.h>
#include <pthread.h>

/* A held fault: it waits in KVM for a page that a userfaultfd has not filled in yet, while the host reclaims pages. */
static struct {
	pthread_t thread;
	volatile int over;
	int result, fd, op, vcpu, kind, alias;
	uint64_t gfn, page;
} held = { .fd = -1 };

static void *fault(void *unused)
{
	held.result = run(held.vcpu);
	held.over = 1;
	return unused;
}

static int watch(uint64_t page)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
		return -1;
	for (int mapping = 0; mapping < MAPPINGS; mapping++) {
		struct uffdio_register reg = { .range = { (uintptr_t)hva(mapping, page), PAGE }, .mode = UFFDIO_REGISTER_MODE_MISSING };
		must(ioctl(fd, UFFDIO_REGISTER, &reg), "watch a page");
	}
	must(discard(0, page, 1), "discard a page");
	return fd;
}

/* If the fault cannot be held, or ends at once, the access must find what is there now. */
static void fault_begin(int op, int vcpu, int kind, uint64_t gfn, int alias, uint64_t page, uint64_t memory, const char *expected)
{
	held.op = op, held.vcpu = vcpu, held.kind = kind, held.gfn = gfn, held.alias = alias, held.page = page;
	held.over = 0, held.fd = watch(page);
	prepare(vcpu, kind, gfn, alias, word_of(op), ++values);
	if (held.fd < 0) {
		printf("op %d: this fault is not held open: no userfaultfd: %s\n", op, strerror(errno));
		judge(op, vcpu, kind, gfn, alias, run(vcpu), memory, NONE, 0, expected);
		return;
	}
	errno = pthread_create(&held.thread, NULL, fault, NULL);
	if (errno)
		die("start a thread");
	struct pollfd event = { held.fd, POLLIN, 0 };
	while (poll(&event, 1, 1) <= 0 && !held.over)
		;
	if (held.over) {
		close(held.fd);
		held.fd = -1;
		pthread_join(held.thread, NULL);
		stamp(page, memory);
		judge(op, vcpu, kind, gfn, alias, held.result, memory, NONE, 0, expected);
		return;
	}
	awaited = page;
}

static void fault_end(uint64_t memory, const char *expected)
{
	static uint8_t filled[PAGE] __attribute__((aligned(PAGE)));
	if (held.fd < 0)
		return;
	if (awaited != NONE) {
		write_identity(filled, memory);
		struct uffdio_copy copy = { .dst = (uintptr_t)hva(0, held.page), .src = (uintptr_t)filled, .len = PAGE };
		awaited = NONE;
		must(ioctl(held.fd, UFFDIO_COPY, &copy), "fill a page in");
	}
	close(held.fd);
	held.fd = -1;
	pthread_join(held.thread, NULL);
	judge(held.op, held.vcpu, held.kind, held.gfn, held.alias, held.result, memory, NONE, 0, expected);
}
