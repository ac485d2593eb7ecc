/* A software-protected VM: a guest_memfd, which only the guest reaches, backs memslots that are neither logged nor read-only. */
#define CREATE_GUEST_MEMFD _IOWR(KVMIO, 0xd4, struct guest_memfd)
#define SET_MEMORY_ATTRIBUTES _IOW(KVMIO, 0xd2, struct attributes)
#define SET_REGION2 _IOW(KVMIO, 0x49, struct region2)

struct guest_memfd { uint64_t size, flags, reserved[6]; };
struct attributes { uint64_t address, size, attributes, flags; };
struct region2 {
	uint32_t slot, flags;
	uint64_t gpa, bytes, hva, offset;
	uint32_t memfd, padding;
	uint64_t reserved[14];
};

static int memfds[SLOTS];
static uint64_t shared; /* a bit for each frame that is shared although its memslot has a guest_memfd */
static uint64_t chosen; /* a bit for each frame that became private before it had a memslot */

static int is_protected(int id)
{
	return slots[id].pages && !slots[id].flags;
}

static int is_private(int id, uint64_t page)
{
	return is_protected(id) && !(shared >> (slots[id].gfn + page - BASE) & 1);
}

static void set_private(uint64_t gfn, uint64_t pages, int private)
{
	struct attributes attributes = { gfn * PAGE, pages * PAGE, private ? 1 << 3 : 0, 0 };
	must(ioctl(vm, SET_MEMORY_ATTRIBUTES, &attributes), "set the attributes of memory");
}

/* Lets the first vCPU give a private page its identity. */
static void stamp_private(int id, uint64_t page, uint32_t identity)
{
	union { uint8_t bytes[16]; uint64_t words[2]; } both;
	write_identity(both.bytes, identity);
	for (int word = 0; is_private(id, page) && word < 2; word++) {
		prepare(0, WRITE, slots[id].gfn + page, 0, 8 * word, both.words[word]);
		run(0);
	}
}

static void set_protected(int id)
{
	struct guest_memfd memfd = { .size = slots[id].pages * PAGE };
	if (memfds[id] <= 0)
		memfds[id] = must(ioctl(vm, CREATE_GUEST_MEMFD, &memfd), "make a guest_memfd");
	for (uint64_t page = 0; page < slots[id].pages; page++)
		set_private(slots[id].gfn + page, 1, chosen >> (slots[id].gfn + page - BASE) & 1);
	struct region2 region = {
		.slot = slot_of(id, 0), .flags = 1 << 2, .gpa = slots[id].gfn * PAGE, .bytes = slots[id].pages * PAGE,
		.hva = (uintptr_t)hva(0, slots[id].hva), .memfd = memfds[id],
	};
	must(ioctl(vm, SET_REGION2, &region), "set a memslot with a guest_memfd");
	/* The guest touches the pages as shared ones first, because Linux 6.12 keeps the MMIO SPTE of a hole that the guest has seen. */
	for (uint64_t page = 0; page < slots[id].pages; page++) {
		prepare(0, READ, slots[id].gfn + page, 0, 0, 0);
		run(0);
		set_private(slots[id].gfn + page, 1, is_private(id, page));
	}
	for (uint64_t page = 0; page < slots[id].pages; page++)
		stamp_private(id, page, identities[slots[id].hva + page]);
}

static void forget_protected(int id, int keep)
{
	set_private(slots[id].gfn, slots[id].pages, 0);
	if (!keep) {
		close(memfds[id]);
		memfds[id] = 0;
	}
}

/* Host pages were reclaimed: the private pages that stand for them go, too. */
static void unmap_private(uint64_t first, uint64_t pages)
{
	for (int id = 0; id < SLOTS; id++)
		for (uint64_t page = 0; is_protected(id) && page < slots[id].pages; page++)
			if (slots[id].hva + page - first < pages) {
				must(fallocate(memfds[id], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, page * PAGE, PAGE), "punch a hole");
				stamp_private(id, page, identities[slots[id].hva + page]);
			}
}

/* Makes frames private or shared. The guest marks a private page that a frame leaves, and must not find it again. */
static void attributes_(uint64_t gfn, uint64_t pages, int private)
{
	for (uint64_t at = gfn; at < gfn + pages; at++)
		for (int id = 0; id < SLOTS; id++) {
			uint64_t page = at - slots[id].gfn;
			if (!is_protected(id) || page >= slots[id].pages)
				continue;
			if (!private)
				stamp_private(id, page, ~0U);
			set_private(at, 1, private);
		}
	uint64_t frames = (pages < 64 ? (1UL << pages) - 1 : NONE) << (gfn - BASE);
	shared = private ? shared & ~frames : shared | frames;
	chosen = private ? chosen | frames : chosen & ~frames;
	for (int id = 0; private && id < SLOTS; id++)
		for (uint64_t page = 0; page < slots[id].pages; page++)
			if (frames >> (slots[id].gfn + page - BASE) & 1)
				stamp_private(id, page, identities[slots[id].hva + page]);
}
