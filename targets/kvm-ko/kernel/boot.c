// SPDX-License-Identifier: GPL-2.0-only
// The machine that KVM finds: one processor with just the features that its MMU looks at, and what privileged instructions answer.
#include <linux/kernel.h>
#include <linux/cpu.h>
#include <linux/cpuhotplug.h>
#include <linux/cpumask.h>
#include <linux/hrtimer.h>
#include <linux/jump_label.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/percpu.h>
#include <linux/shrinker.h>
#include <linux/smp.h>
#include <linux/static_call.h>
#include <linux/timekeeping.h>
#include <linux/version.h>
#include <asm/cpu_entry_area.h>
#include <asm/desc.h>
#include <asm/msr.h>
#include <asm/paravirt.h>
#include <asm/processor.h>
#include <asm/svm.h>
#include "worker.h"

extern unsigned long page_offset_base, vmemmap_base;
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 15, 0)
DECLARE_PER_CPU_READ_MOSTLY(unsigned long, this_cpu_off);
#endif

/* What the worker decides. */
u32 worker_physical_bits = 48;
u32 worker_intel;
extern u64 worker_vmx_msr(u32 msr);

static u64 efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NX;

static u64 read_msr(unsigned int msr)
{
	switch (msr) {
	case MSR_EFER:
		return efer;
	case MSR_IA32_CR_PAT:
		return 0x0007040600070406ULL;
	case MSR_IA32_APICBASE:
		return APIC_DEFAULT_PHYS_BASE | MSR_IA32_APICBASE_ENABLE | MSR_IA32_APICBASE_BSP;
	case MSR_IA32_FEAT_CTL:
	case MSR_IA32_VMX_BASIC ... MSR_IA32_VMX_VMFUNC:
		return worker_vmx_msr(msr);
	default:
		return 0;
	}
}

static void set_msr(unsigned int msr, u64 value)
{
	if (msr == MSR_EFER)
		efer = value;
}

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 16, 0)
static void write_msr(unsigned int msr, unsigned int low, unsigned int high) { set_msr(msr, low | (u64)high << 32); }
static u64 read_msr_safe(unsigned int msr, int *error)
{
	*error = 0;
	return read_msr(msr);
}
static int write_msr_safe(unsigned int msr, unsigned int low, unsigned int high)
{
	write_msr(msr, low, high);
	return 0;
}
#else
static void write_msr(unsigned int msr, u64 value) { set_msr(msr, value); }
static int read_msr_safe(unsigned int msr, u64 *value)
{
	*value = read_msr(msr);
	return 0;
}
static int write_msr_safe(unsigned int msr, u64 value)
{
	write_msr(msr, value);
	return 0;
}
#endif

/* A fixed answer, so that a program does the same on every machine. */
static void answer_cpuid(unsigned int *eax, unsigned int *ebx, unsigned int *ecx, unsigned int *edx)
{
	static const char amd[] = "AuthenticAMD", intel[] = "GenuineIntel";
	const u32 *vendor = (const u32 *)(worker_intel ? intel : amd);
	u32 leaf = *eax;

	*eax = *ebx = *ecx = *edx = 0;
	switch (leaf) {
	case 0:
	case 0x80000000:
		*eax = leaf ? 0x80000021 : 13;
		*ebx = vendor[0];
		*edx = vendor[1];
		*ecx = vendor[2];
		break;
	case 1:
		*eax = worker_intel ? 0x806f0 : 0xa20f10;
		*ecx = worker_intel ? BIT(X86_FEATURE_VMX & 31) : 0;
		*edx = boot_cpu_data.x86_capability[0];
		break;
	case 0x80000001:
		*ecx = boot_cpu_data.x86_capability[6];
		*edx = boot_cpu_data.x86_capability[1];
		break;
	case 0x80000008:
		*eax = worker_physical_bits | 48 << 8;
		break;
	case 0x8000000a:
		*eax = 1;
		*ebx = 0x8000;
		*edx = boot_cpu_data.x86_capability[15];
		break;
	}
}

static unsigned long answer_cr0(void) { return X86_CR0_PG | X86_CR0_WP | X86_CR0_NE | X86_CR0_MP | X86_CR0_ET | X86_CR0_PE; }
static unsigned long answer_cr3(void) { return PAGE_SIZE; }
unsigned long __get_current_cr3_fast(void) { return PAGE_SIZE; }
static unsigned long answer_tr(void) { return GDT_ENTRY_TSS * 8; }
static unsigned long answer_debugreg(int number) { return 0; }
static void nothing(void) { }

/* These keep all registers but RAX (PV_CALLEE_SAVE_REGS_THUNK). */
asm(".pushsection .text\n"
    "worker_save_flags: mov $0x200, %eax; ret\n"
    "worker_no_effect: ret\n"
    "worker_identity: mov %rdi, %rax; ret\n"
    ".popsection");
extern char worker_save_flags[], worker_no_effect[], worker_identity[];
struct paravirt_patch_template pv_ops;
#define SAVED(function) ((struct paravirt_callee_save){ (void *)(function) })

static void init_paravirt(void)
{
	unsigned long i;

	for (i = 0; i < sizeof(pv_ops) / sizeof(void *); i++)
		((void **)&pv_ops)[i] = nothing;
	pv_ops.cpu.read_msr = read_msr;
	pv_ops.cpu.write_msr = write_msr;
	pv_ops.cpu.read_msr_safe = read_msr_safe;
	pv_ops.cpu.write_msr_safe = write_msr_safe;
	pv_ops.cpu.read_cr0 = answer_cr0;
	pv_ops.cpu.cpuid = answer_cpuid;
	pv_ops.cpu.store_tr = answer_tr;
	pv_ops.cpu.get_debugreg = answer_debugreg;
	pv_ops.irq.save_fl = SAVED(worker_save_flags);
	pv_ops.irq.irq_disable = pv_ops.irq.irq_enable = SAVED(worker_no_effect);
	pv_ops.mmu.read_cr2 = SAVED(worker_no_effect);
	pv_ops.mmu.read_cr3 = answer_cr3;
	pv_ops.mmu.pte_val = pv_ops.mmu.make_pte = SAVED(worker_identity);
	pv_ops.mmu.pmd_val = pv_ops.mmu.make_pmd = SAVED(worker_identity);
	pv_ops.mmu.pud_val = pv_ops.mmu.make_pud = SAVED(worker_identity);
	pv_ops.mmu.p4d_val = pv_ops.mmu.make_p4d = SAVED(worker_identity);
	pv_ops.mmu.pgd_val = pv_ops.mmu.make_pgd = SAVED(worker_identity);
#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 0, 0)
	pv_ops.lock.vcpu_is_preempted = SAVED(worker_no_effect);
#endif
}

static void init_processor(void)
{
	static const int common[] = { X86_FEATURE_FPU, X86_FEATURE_FXSR, X86_FEATURE_NX, X86_FEATURE_LM, X86_FEATURE_PAT,
		X86_FEATURE_MTRR, X86_FEATURE_GBPAGES, X86_FEATURE_CONSTANT_TSC, X86_FEATURE_TSC, X86_FEATURE_APIC,
		X86_FEATURE_RDTSCP, X86_FEATURE_PAE, X86_FEATURE_PSE, X86_FEATURE_CX8, X86_FEATURE_PGE, X86_FEATURE_MSR,
		X86_FEATURE_SYSCALL };
	static const int amd[] = { X86_FEATURE_SVM, X86_FEATURE_NPT, X86_FEATURE_DECODEASSISTS, X86_FEATURE_NRIPS,
		X86_FEATURE_FLUSHBYASID };
	static const int intel[] = { X86_FEATURE_VMX, X86_FEATURE_MSR_IA32_FEAT_CTL };
	struct cpuinfo_x86 *cpu = &boot_cpu_data;
	int i;

	cpu->x86_vendor = worker_intel ? X86_VENDOR_INTEL : X86_VENDOR_AMD;
	cpu->x86 = worker_intel ? 6 : 0x19;
	cpu->x86_model = worker_intel ? 0x8f : 0x21;
	cpu->x86_phys_bits = worker_physical_bits;
	cpu->x86_virt_bits = cpu->x86_cache_bits = 48;
	cpu->cpuid_level = 13;
	cpu->extended_cpuid_level = 0x80000021;
	cpu->x86_clflush_size = 64;
	for (i = 0; i < ARRAY_SIZE(common); i++)
		set_cpu_cap(cpu, common[i]);
	for (i = 0; !worker_intel && i < ARRAY_SIZE(amd); i++)
		set_cpu_cap(cpu, amd[i]);
	for (i = 0; worker_intel && i < ARRAY_SIZE(intel); i++)
		set_cpu_cap(cpu, intel[i]);
	*this_cpu_ptr(&cpu_info) = *cpu;
}

/* pfn_valid() of all physical memory. */
static void init_sections(unsigned long bytes)
{
	unsigned long section;

	mem_section = worker_alloc(NR_SECTION_ROOTS * sizeof(void *), true);
	for (section = 0; section < bytes >> SECTION_SIZE_BITS; section++) {
		struct mem_section **root = &mem_section[SECTION_NR_TO_ROOT(section)];

		if (!*root)
			*root = worker_alloc(SECTIONS_PER_ROOT * sizeof(**root), true);
		(*root)[section & SECTION_ROOT_MASK].section_mem_map =
			SECTION_MARKED_PRESENT | SECTION_HAS_MEM_MAP | SECTION_IS_ONLINE | SECTION_IS_EARLY;
	}
}

/* start_kernel(), as far as KVM can tell. */
void worker_boot(unsigned long physical, unsigned long pages, unsigned long bytes, unsigned long percpu)
{
	int node;

	page_offset_base = physical;
	vmemmap_base = pages;
	cpumask_set_cpu(0, &__cpu_online_mask);
	cpumask_set_cpu(0, &__cpu_possible_mask);
	cpumask_set_cpu(0, &__cpu_present_mask);
	for (node = 0; node < NR_NODE_STATES; node++)
		node_set(0, node_states[node]);
	__per_cpu_offset[0] = percpu;
	this_cpu_write(this_cpu_off, percpu);
	init_sections(bytes);
	init_processor();
	init_paravirt();
}

/* One processor: what is asked of others is done here. */
int __cpuhp_setup_state(enum cpuhp_state state, const char *name, bool invoke, int (*up)(unsigned int), int (*down)(unsigned int), bool multi)
{
	return invoke && up ? up(0) : 0;
}
#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 0, 0)
int smp_call_function_single(int cpu, smp_call_func_t function, void *info, int wait)
#else
int smp_call_function_single(int cpu, smp_call_func_t function, void *info, bool wait)
#endif
{
	function(info);
	return 0;
}
void on_each_cpu_cond_mask(smp_cond_func_t condition, smp_call_func_t function, void *info, bool wait, const struct cpumask *mask)
{
	function(info);
}
void smp_call_function_many(const struct cpumask *mask, smp_call_func_t function, void *info, bool wait) { }
struct cpu_entry_area *get_cpu_entry_area(int cpu)
{
	static struct cpu_entry_area *area;

	if (!area)
		area = worker_alloc(sizeof(*area), true);
	return area;
}

/* Code that is patched. */
void __static_call_update(struct static_call_key *key, void *trampoline, void *function)
{
	key->func = function;
	worker_static_call(trampoline, function);
}

static void set_key(struct static_key *key, int enabled)
{
	bool changes = (atomic_read(&key->enabled) > 0) != (enabled > 0);

	atomic_set(&key->enabled, enabled);
	if (changes)
		worker_jump_label(key);
}
bool static_key_slow_inc(struct static_key *key)
{
	set_key(key, atomic_read(&key->enabled) + 1);
	return true;
}
void static_key_slow_dec(struct static_key *key) { set_key(key, atomic_read(&key->enabled) - 1); }
void __static_key_slow_dec_deferred(struct static_key *key, struct delayed_work *work, unsigned long timeout) { static_key_slow_dec(key); }
void static_key_enable(struct static_key *key) { set_key(key, 1); }
void static_key_disable(struct static_key *key) { set_key(key, 0); }

/* Time passes by one microsecond at each look, so that a program does the same every time. */
static ktime_t now;
ktime_t ktime_get(void) { return now += NSEC_PER_USEC; }
ktime_t ktime_get_raw(void) { return ktime_get(); }
ktime_t ktime_get_with_offset(enum tk_offsets offset) { return ktime_get(); }
void hrtimer_init(struct hrtimer *timer, clockid_t clock, enum hrtimer_mode mode) { memset(timer, 0, sizeof(*timer)); }
unsigned long __msecs_to_jiffies(const unsigned int ms) { return DIV_ROUND_UP(ms * HZ, 1000); }

struct shrinker *shrinker_alloc(unsigned int flags, const char *format, ...) { return worker_alloc(sizeof(struct shrinker), true); }
void shrinker_free(struct shrinker *shrinker) { worker_free(shrinker); }
