/* The dirty log: a ring for each vCPU. */
#define RESET_RINGS _IO(KVMIO, 0xc7)
#define ENTRIES 4096U

struct entry { uint32_t flags, slot; uint64_t page; };
static struct entry *rings[4];
static unsigned next_entry[4];
static uint64_t taken[SLOTS];

static void log_open(void)
{
	struct kvm_enable_cap cap = { .cap = 223 /* DIRTY_LOG_RING_ACQ_REL */, .args = { ENTRIES * sizeof(struct entry) } };
	must(ioctl(vm, KVM_ENABLE_CAP, &cap), "enable dirty rings");
}

static void log_of_vcpu(int vcpu)
{
	rings[vcpu] = mmap(NULL, ENTRIES * sizeof(struct entry), PROT_READ | PROT_WRITE, MAP_SHARED, vcpus[vcpu], 64 * PAGE);
	if (rings[vcpu] == MAP_FAILED)
		die("map a dirty ring");
}

static void log_take(void)
{
	for (int vcpu = 0; vcpu < VCPUS; vcpu++)
		for (;;) {
			struct entry *entry = &rings[vcpu][next_entry[vcpu] % ENTRIES];
			if (!(__atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE) & 1))
				break;
			int id = (entry->slot & 0xffff) / NAMES;
			if (id < SLOTS)
				taken[id] |= 1UL << (entry->page & 63);
			__atomic_store_n(&entry->flags, 2, __ATOMIC_RELEASE);
			next_entry[vcpu]++;
		}
}

/* Before a memslot changes, take what the rings list of it. */
static void log_changes(int id, int forget)
{
	log_take();
	if (forget)
		taken[id] = 0;
}

static uint64_t log_get(int id)
{
	log_take();
	return taken[id] & (slots[id].pages < 64 ? (1UL << slots[id].pages) - 1 : NONE);
}

/* Resetting the entries write-protects their pages again. */
static void log_clear(int id, uint64_t bits)
{
	log_take();
	taken[id] &= ~bits;
	must(ioctl(vm, RESET_RINGS, 0), "reset the dirty rings");
}
