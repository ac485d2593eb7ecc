/* The dirty log: a bitmap for each memslot. */
static void log_open(void)
{
	struct kvm_enable_cap manual = { .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, .args = { 1 } };
	must(ioctl(vm, KVM_ENABLE_CAP, &manual), "protect pages manually");
}

static void log_of_vcpu(int vcpu)
{
	(void)vcpu;
}

static void log_changes(int id, int forget)
{
	(void)id, (void)forget;
}

static uint64_t log_get(int id)
{
	uint64_t dirty = 0;
	for (int name = 0; name < EACH; name++) {
		uint64_t bits[8] = { 0 };
		struct kvm_dirty_log log = { .slot = slot_of(id, name), .dirty_bitmap = bits };
		must(ioctl(vm, KVM_GET_DIRTY_LOG, &log), "get a dirty log");
		dirty |= bits[0];
	}
	return dirty;
}

static void log_clear(int id, uint64_t bits)
{
	for (int name = 0; name < EACH; name++) {
		struct kvm_clear_dirty_log log = {
			.slot = slot_of(id, name), .num_pages = slots[id].pages, .dirty_bitmap = &bits,
		};
		must(ioctl(vm, KVM_CLEAR_DIRTY_LOG, &log), "clear a dirty log");
	}
}
