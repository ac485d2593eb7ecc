/* Without ioeventfds. */
static void write_to(int op, int vcpu, uint64_t gfn, int alias, uint64_t memory, uint64_t mmio, int error, const char *expected)
{
	access_(op, vcpu, WRITE, gfn, alias, memory, mmio, error, expected);
}
