//! What the script adds to KVM so that it can be watched and held still: nothing of it changes what KVM decides.
//!
//! - a back-end for range flushes in software, because SVM has none: it works, is absent or fails as `stolen_range_flush` says;
//! - an account of what is owed, because QEMU's TLB forgets at each exit: an SPTE that loses rights owes a flush of its alias, a
//!   flush that works pays, and a vCPU that is entered with a debt could still use what was taken away, which is a WARN;
//! - a place where a memslot that is being deleted or moved waits while `stolen_slot_window` is not 0, so that the time between the
//!   two halves of the change is as long as a program wants it;
//! - a level of the rmap at which a walk gives way to others, `stolen_yield_level`, because when it does is otherwise up to the scheduler;
//! - a file `mmu_sptes` for each VM in debugfs, which shows the older MMU's tables, its rmap and its flushes; there is none where KVM
//!   shadows the guest's own tables, because the tables are then by linear address;
//! - a file `stolen_gfn_mask` for each VM there, which shows the mask that is in force.

use super::{DEBUGFS, HOST, MAIN, MMU, X86, edit};
use crate::edits::{Edit, Rewrite};
use Rewrite::{After, Before, InFront, Replace};

pub(super) const EDITS: [Edit; 12] = [
    edit(HOST, "", Before("#define __KVM_HAVE_ARCH_FLUSH_REMOTE_TLBS_RANGE", DECLARATIONS)),
    edit(
        HOST,
        "kvm_arch_flush_remote_tlbs_range",
        Before("if (!", "if (kvm_stolen_flush_range(kvm, gfn, nr_pages) == 0)\n\t\treturn 0;\n\t"),
    ),
    edit(MMU, "", After("#include <linux/kvm_host.h>\n", "#include <linux/delay.h>\n#include <linux/seq_file.h>\n")),
    edit(MMU, "kvm_available_flush_remote_tlbs_range", InFront(BACKEND)),
    edit(MMU, "kvm_mmu_init_vm", InFront(TABLES)),
    // What loses rights owes a flush; a full flush pays for everything.
    edit(
        MMU,
        "spte_write_protect",
        Replace("return mmu_spte_update(sptep, spte)", "return kvm_stolen_owe(sptep, mmu_spte_update(sptep, spte))"),
    ),
    edit(
        MMU,
        "mmu_spte_clear_track_bits",
        Before("if (!", "kvm_stolen_owe(sptep, is_shadow_present_pte(old_spte));\n\t"),
    ),
    edit(MAIN, "kvm_flush_remote_tlbs", After("{\n", "\tkvm_stolen_flush_all(kvm);\n")),
    edit(X86, "vcpu_enter_guest", Before("if (kvm_request_pending(vcpu))", "kvm_stolen_flush_owed();\n\t")),
    edit(
        MMU,
        "__walk_slot_rmaps",
        Replace("need_resched() ||", "iterator.level == READ_ONCE(stolen_yield_level) || need_resched() ||"),
    ),
    // The old slot is INVALID and nothing maps it; the new one is not there yet.
    edit(MAIN, "kvm_invalidate_memslot", Before("mutex_lock(", "kvm_stolen_slot_window();\n\n\t")),
    edit(
        DEBUGFS,
        "kvm_arch_create_vm_debugfs",
        After(
            "{\n",
            "\tdebugfs_create_x64(\"stolen_gfn_mask\", 0400, kvm->debugfs_dentry, &kvm->arch.stolen_gfn_mask);\n\
             \tif (tdp_enabled && !tdp_mmu_enabled)\n\t\tdebugfs_create_file(\"mmu_sptes\", 0400, kvm->debugfs_dentry, kvm,\n\t\t\t\t    &kvm_stolen_sptes_fops);\n",
        ),
    ),
];

/// What `TABLES` asks of the kernel, in the form of Linux 6.
pub(super) const EDITS_6: [Edit; 1] = [edit(MMU, "kvm_mmu_init_vm", InFront(WORDS_6))];

/// The same in the form of Linux 7.
pub(super) const EDITS_7: [Edit; 1] = [edit(MMU, "kvm_mmu_init_vm", InFront(WORDS_7))];

const WORDS_6: &str = "#define stolen_rmap_val(head)		((head)->val)
#define stolen_log_size(kvm)		(kvm_x86_ops.cpu_dirty_log_size)
#define stolen_dirty_mask(spte)		spte_shadow_dirty_mask(spte)
#define stolen_is_executable(spte)	is_executable_pte(spte)

";

const WORDS_7: &str = "#define stolen_rmap_val(head)		kvm_rmap_get(head)
#define stolen_log_size(kvm)		((kvm)->arch.cpu_dirty_log_size)
#define stolen_dirty_mask(spte)		(spte_ad_enabled(spte) ? shadow_dirty_mask : 0)
#define stolen_is_executable(spte)	(!((spte) & shadow_nx_mask) && ((spte) & shadow_xs_mask) == shadow_xs_mask)

";

const DECLARATIONS: &str = "struct seq_file;
void kvm_stolen_flush_owed(void);
void kvm_stolen_flush_all(struct kvm *kvm);
int kvm_stolen_flush_range(struct kvm *kvm, gfn_t gfn, u64 pages);
void kvm_stolen_slot_window(void);
extern const struct file_operations kvm_stolen_sptes_fops;
";

/// The parameters, the back-end with its ways to fail, and the range flush of both aliases.
const BACKEND: &str = "
static ulong stolen_gpa_mask;
module_param(stolen_gpa_mask, ulong, 0644);

#define STOLEN_RANGE_FLUSH	1
#define STOLEN_FIRST_FAILS	2
#define STOLEN_SECOND_FAILS	4
static uint stolen_range_flush;
module_param(stolen_range_flush, uint, 0644);

/* Walks of the rmap give way at this level, even if no other task waits; 0 is no level. */
static int stolen_yield_level;
module_param(stolen_yield_level, int, 0644);

#define STOLEN_WINDOW_OPENS	1
#define STOLEN_WINDOW_IS_OPEN	2
static uint stolen_slot_window;
module_param(stolen_slot_window, uint, 0644);

void kvm_stolen_slot_window(void)
{
	if (READ_ONCE(stolen_slot_window) != STOLEN_WINDOW_OPENS)
		return;
	WRITE_ONCE(stolen_slot_window, STOLEN_WINDOW_IS_OPEN);
	while (READ_ONCE(stolen_slot_window) && !fatal_signal_pending(current))
		usleep_range(50, 100);
}

/* The last flushes of all VMs, the newest at (stolen_flushes - 1) % STOLEN_FLUSHES. */
#define STOLEN_FLUSHES	256
static struct stolen_flush {
	struct kvm *kvm;
	gfn_t gfn;
	u64 pages;
	bool ok;
} stolen_flush_log[STOLEN_FLUSHES];
static unsigned long stolen_flushes;
static DEFINE_SPINLOCK(stolen_flush_lock);

/* No pages: everything. */
static void stolen_note_flush(struct kvm *kvm, gfn_t gfn, u64 pages, bool ok)
{
	spin_lock(&stolen_flush_lock);
	stolen_flush_log[stolen_flushes++ % STOLEN_FLUSHES] = (struct stolen_flush){ kvm, gfn, pages, ok };
	spin_unlock(&stolen_flush_lock);
}

#define STOLEN_OWED_BASE	1
#define STOLEN_OWED_ALIAS	2
static unsigned int stolen_owed;

noinline void kvm_stolen_flush_owed(void)
{
	if (WARN_ON(stolen_owed))
		stolen_owed = 0;
}

static bool kvm_stolen_owe(u64 *sptep, bool flush)
{
	if (flush)
		stolen_owed |= sptep_to_sp(sptep)->gfn_stolen_bits ? STOLEN_OWED_ALIAS : STOLEN_OWED_BASE;
	return flush;
}

void kvm_stolen_flush_all(struct kvm *kvm)
{
	stolen_owed = 0;
	stolen_note_flush(kvm, 0, 0, true);
}

static int stolen_backend(struct kvm *kvm, gfn_t gfn, u64 pages, bool alias)
{
	bool ok = !(stolen_range_flush & (alias ? STOLEN_SECOND_FAILS : STOLEN_FIRST_FAILS));

	stolen_note_flush(kvm, alias ? gfn | kvm_gfn_stolen_mask(kvm) : gfn, pages, ok);
	if (!ok)
		return -EIO;
	stolen_owed &= alias ? ~STOLEN_OWED_ALIAS : ~STOLEN_OWED_BASE;
	return 0;
}

int kvm_stolen_flush_range(struct kvm *kvm, gfn_t gfn, u64 pages)
{
	gfn_t mask = kvm_gfn_stolen_mask(kvm);

	if (!(stolen_range_flush & STOLEN_RANGE_FLUSH))
		return -EOPNOTSUPP;
	if (hweight64(mask) > 1)
		return -EOPNOTSUPP;
	if (stolen_backend(kvm, gfn, pages, false))
		return -EIO;
	if (!mask)
		return 0;
	return stolen_backend(kvm, gfn, pages, true);
}

";

/// The file: tables as the processor walks them, what is kept by gfn, and the flushes, all under one lock: the host may take pages away
/// for reasons of its own, and then an entry goes with its flush. Addresses of SPTEs tell which is which.
const TABLES: &str =
    "/* Whether a write would not be logged: where the processor logs, it does so when it sets the dirty bit. */
static int stolen_unnoticed(struct kvm *kvm, u64 spte)
{
	u64 dirty = stolen_log_size(kvm) ? stolen_dirty_mask(spte) : 0;

	return is_writable_pte(spte) && (spte & dirty) == dirty;
}

static void stolen_show_table(struct seq_file *m, struct kvm *kvm, u64 *table, int level, gpa_t gpa)
{
	u64 *sptep;

	for (sptep = table; sptep < table + SPTE_ENT_PER_PAGE; sptep++, gpa += KVM_HPAGE_SIZE(level)) {
		u64 spte = READ_ONCE(*sptep);

		if (is_mmio_spte(kvm, spte))
			seq_printf(m, \"mmio %llx %llx\\n\", gpa, get_mmio_spte_gfn(spte));
		else if (!is_shadow_present_pte(spte))
			continue;
		else if (!is_last_spte(spte, level))
			stolen_show_table(m, kvm, spte_to_child_sp(spte)->spt, level - 1, gpa);
		else
			seq_printf(m, \"leaf %llx %d %llx %d %lx\\n\", gpa, level, (u64)spte_to_pfn(spte),
				   is_access_track_spte(spte) ? 0 : 1 | stolen_unnoticed(kvm, spte) << 1 | stolen_is_executable(spte) << 2,
				   (unsigned long)sptep);
	}
}

static void stolen_show_rmap(struct seq_file *m, struct kvm_rmap_head *head, gfn_t gfn)
{
	unsigned long val = stolen_rmap_val(head);
	struct pte_list_desc *desc;
	int i;

	if (!val)
		return;
	if (!(val & KVM_RMAP_MANY)) {
		seq_printf(m, \"rmap %llx %lx\\n\", gfn, val);
		return;
	}
	for (desc = (struct pte_list_desc *)(val & ~KVM_RMAP_MANY); desc; desc = desc->more)
		for (i = 0; i < desc->spte_count; i++)
			seq_printf(m, \"rmap %llx %lx\\n\", gfn, (unsigned long)desc->sptes[i]);
}

static void stolen_show_slot(struct seq_file *m, const struct kvm_memory_slot *slot)
{
	gfn_t gfn, end = slot->base_gfn + slot->npages;
	int level;

	for (level = PG_LEVEL_4K; level <= KVM_MAX_HUGEPAGE_LEVEL; level++) {
		gfn_t pages = KVM_PAGES_PER_HPAGE(level);

		if (!slot->arch.rmap[level - PG_LEVEL_4K])
			continue;
		for (gfn = slot->base_gfn; gfn < end; gfn = (gfn | (pages - 1)) + 1)
			stolen_show_rmap(m, gfn_to_rmap(gfn, level, slot), gfn & ~(pages - 1));
	}
}

static int kvm_stolen_sptes_show(struct seq_file *m, void *v)
{
	struct kvm *kvm = m->private;
	struct kvm_memory_slot *slot;
	struct kvm_mmu_page *sp;
	unsigned long flush;
	int bkt, idx;

	idx = srcu_read_lock(&kvm->srcu);
	write_lock(&kvm->mmu_lock);
	list_for_each_entry(sp, &kvm->arch.active_mmu_pages, link) {
		if (is_obsolete_sp(kvm, sp) || sp->role.invalid)
			continue;
		seq_printf(m, \"page %llx %llx %x\\n\", sp->gfn, sp->gfn_stolen_bits, sp->role.level);
		if (sp->root_count)
			stolen_show_table(m, kvm, sp->spt, sp->role.level, 0);
	}
	kvm_for_each_memslot(slot, bkt, kvm_memslots(kvm))
		stolen_show_slot(m, slot);
	spin_lock(&stolen_flush_lock);
	flush = stolen_flushes < STOLEN_FLUSHES ? 0 : stolen_flushes - STOLEN_FLUSHES;
	for (; flush < stolen_flushes; flush++) {
		struct stolen_flush *entry = &stolen_flush_log[flush % STOLEN_FLUSHES];

		if (entry->kvm == kvm)
			seq_printf(m, \"flush %lx %llx %llx %d\\n\", flush, entry->gfn, entry->pages,
				   entry->ok);
	}
	seq_printf(m, \"flushes %lx\\n\", stolen_flushes);
	spin_unlock(&stolen_flush_lock);
	write_unlock(&kvm->mmu_lock);
	srcu_read_unlock(&kvm->srcu, idx);
	return 0;
}

static int kvm_stolen_sptes_open(struct inode *inode, struct file *file)
{
	return single_open_size(file, kvm_stolen_sptes_show, inode->i_private, 64 << 10);
}

const struct file_operations kvm_stolen_sptes_fops = {
	.owner = THIS_MODULE,
	.open = kvm_stolen_sptes_open,
	.read = seq_read,
	.llseek = seq_lseek,
	.release = single_release,
};

";
