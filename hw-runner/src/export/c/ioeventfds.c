#include <sys/eventfd.h>

/* A write to a hole signals the ioeventfd of its own name, once, and no other. */
static int assign(uint64_t gpa, int fd, uint32_t flags)
{
	struct kvm_ioeventfd ioeventfd = { .addr = gpa, .fd = fd, .flags = flags };
	return ioctl(vm, KVM_IOEVENTFD, &ioeventfd);
}

/* Whether an eventfd was signalled; if not, the access is judged like any other. */
static int signalled(int op, uint64_t gfn, int alias, int fd[2], uint64_t mmio, const char *expected)
{
	uint64_t times[2] = { 0 };
	for (int n = 0; n < 2; n++)
		if (fd[n] >= 0 && read(fd[n], &times[n], sizeof(times[n])) < 0)
			times[n] = 0;
	if (times[1] || times[0] > 1)
		complain(op, "a wrong eventfd signalled for gpa", gpa_of(gfn, alias), expected);
	if (!times[0] && mmio != NONE)
		complain(op, "no eventfd signalled for gpa", gpa_of(gfn, alias), expected);
	if (times[0] && mmio == NONE)
		complain(op, "an eventfd signalled for gpa", gpa_of(gfn, alias), expected);
	return times[0] > 0;
}

static void write_to(int op, int vcpu, uint64_t gfn, int alias, uint64_t memory, uint64_t mmio, int error, const char *expected)
{
	uint64_t gpas[2] = { gpa_of(gfn, alias) + word_of(op), gpa_of(gfn, (alias + 1) % ALIASES) + word_of(op) };
	int fd[2] = { -1, -1 };
	for (int n = 0; n < (ALIASES > 1 ? 2 : 1); n++) {
		fd[n] = must(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "make an eventfd");
		must(assign(gpas[n], fd[n], 0), "assign an ioeventfd");
	}
	prepare(vcpu, WRITE, gfn, alias, word_of(op), ++values);
	int result = run(vcpu);
	if (!signalled(op, gfn, alias, fd, mmio, expected))
		judge(op, vcpu, WRITE, gfn, alias, result, memory, mmio, error, expected);
	for (int n = 0; n < 2 && fd[n] >= 0; n++) {
		must(assign(gpas[n], fd[n], KVM_IOEVENTFD_FLAG_DEASSIGN), "remove an ioeventfd");
		close(fd[n]);
	}
}
