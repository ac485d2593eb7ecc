// SPDX-License-Identifier: GPL-2.0-only
// Variables of the kernel's core that KVM's modules read.
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/percpu.h>
#include <linux/context_tracking.h>
#include <linux/cpumask.h>
#include <linux/hardirq.h>
#include <linux/slab.h>
#include <linux/srcu.h>
#include <linux/tracepoint.h>
#include <linux/tick.h>
#include <linux/version.h>
#include <asm/desc.h>
#include <asm/hypervisor.h>
#include <asm/mshyperv.h>
#include <asm/nospec-branch.h>
#include <asm/processor.h>
#include <asm/smp.h>

unsigned long page_offset_base, vmemmap_base, phys_base;
u64 physical_mask = (1ULL << 46) - 1;
unsigned int pgdir_shift = 39, ptrs_per_p4d = 1;
struct mem_section **mem_section;
nodemask_t node_states[NR_NODE_STATES];
unsigned long USER_PTR_MAX = 0x7ffffffff000;
kmem_buckets kmalloc_caches[NR_KMALLOC_TYPES];
#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 0, 0)
unsigned long zero_pfn = 1;
unsigned long empty_zero_page[PAGE_SIZE / sizeof(long)] __aligned(PAGE_SIZE);
#else
unsigned long zero_page_pfn = 1;
struct page *__zero_page;
#endif

struct cpuinfo_x86 boot_cpu_data;
DEFINE_PER_CPU_READ_MOSTLY(struct cpuinfo_x86, cpu_info);
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 15, 0)
DEFINE_PER_CPU_ALIGNED(struct pcpu_hot, pcpu_hot);
asm(".globl const_pcpu_hot\n.set const_pcpu_hot, pcpu_hot\n");
DEFINE_PER_CPU_READ_MOSTLY(unsigned long, this_cpu_off);
#else
DEFINE_PER_CPU_ALIGNED(struct task_struct *, current_task);
asm(".globl const_current_task\n.set const_current_task, current_task\n");
DEFINE_PER_CPU(unsigned long, __preempt_count);
DEFINE_PER_CPU(int, cpu_number);
DEFINE_PER_CPU(u64, __x86_call_depth);
DEFINE_PER_CPU(unsigned long, __ref_stack_chk_guard);
DEFINE_PER_CPU(unsigned long, this_cpu_off);
struct static_key_false switch_vcpu_ibpb;
bool virt_rebooting;
atomic_long_t _totalram_pages;
struct srcu_struct tracepoint_srcu;
struct tracepoint __tracepoint_sched_set_state_tp;
#endif
DEFINE_PER_CPU(int, numa_node);
DEFINE_PER_CPU(unsigned long, cpu_dr7);
DEFINE_PER_CPU(u64, x86_spec_ctrl_current);
DEFINE_PER_CPU(struct context_tracking, context_tracking);
DEFINE_PER_CPU(bool, x86_ibpb_exit_to_user);
DEFINE_PER_CPU(bool, __tss_limit_invalid);
DEFINE_PER_CPU_READ_MOSTLY(u32, x86_cpu_to_apicid);
DEFINE_PER_CPU_PAGE_ALIGNED(struct gdt_page, gdt_page);
DEFINE_PER_CPU(irq_cpustat_t, irq_stat);
unsigned long __per_cpu_offset[NR_CPUS];
struct cpumask __cpu_online_mask, __cpu_possible_mask, __cpu_present_mask;
atomic_t __num_online_cpus = ATOMIC_INIT(1);
unsigned int nr_cpu_ids = 1;
const unsigned long cpu_bit_bitmap[BITS_PER_LONG + 1][BITS_TO_LONGS(NR_CPUS)];

enum system_states system_state = SYSTEM_RUNNING;
unsigned int tsc_khz = 2000000;
unsigned long volatile jiffies = 1000;
int percpu_counter_batch = 32;
int prof_on, oops_in_progress, debug_locks_silent, x2apic_mode;
cpumask_var_t tick_nohz_full_mask;
bool tick_nohz_full_running;
struct workqueue_struct *system_long_wq, *system_percpu_wq;

u64 sme_me_mask;
u64 x86_pred_cmd;
u16 x86_verw_sel;
bool itlb_multihit_kvm_mitigation;
int l1tf_vmx_mitigation;
enum l1tf_mitigations l1tf_mitigation;
enum x86_hypervisor_type x86_hyper_type;
struct ms_hyperv_info ms_hyperv;
struct hv_vp_assist_page **hv_vp_assist_page;
struct smp_ops smp_ops;

struct static_key_false context_tracking_key, devmap_managed_key, hugetlb_optimize_vmemmap_key, mmio_stale_data_clear,
	sched_smt_present;
struct tracepoint __tracepoint_ipi_send_cpu, __tracepoint_mmap_lock_start_locking,
	__tracepoint_mmap_lock_acquire_returned, __tracepoint_mmap_lock_released, __tracepoint_read_msr,
	__tracepoint_write_msr;
char __SCK__tp_func_ipi_send_cpu[16];
