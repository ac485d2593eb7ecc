// SPDX-License-Identifier: GPL-2.0-only
// VMRUN: the control block and the guest's registers, taken to the processor that the worker is, and back.
#define pr_fmt(fmt) fmt
#include <linux/kvm_host.h>
#include "mmu.h"
#include "svm/svm.h"
#include "worker.h"

extern void *worker_private_data(u32 fd);

/* Bytes of MOV to CR3 from RBX, and of INVLPG of what RBX points to. */
#define INSTRUCTION_BYTES 3

/* Stands for __svm_vcpu_run(). */
void worker_svm_vcpu_run(struct vcpu_svm *svm, bool spec_ctrl_intercepted)
{
	static const u32 exits[] = {
		[WORKER_HALT] = SVM_EXIT_HLT, [WORKER_INTERRUPT] = SVM_EXIT_INTR, [WORKER_NESTED_FAULT] = SVM_EXIT_NPF,
		[WORKER_PAGE_FAULT] = SVM_EXIT_EXCP_BASE + PF_VECTOR, [WORKER_WRITE_CR3] = SVM_EXIT_WRITE_CR3,
		[WORKER_INVALIDATE_PAGE] = SVM_EXIT_INVLPG, [WORKER_SHUTDOWN] = SVM_EXIT_SHUTDOWN,
	};
	struct vmcb_control_area *control = &svm->vmcb->control;
	struct vmcb_save_area *save = &svm->vmcb->save;
	unsigned long *regs = svm->vcpu.arch.regs;
	bool injected = control->event_inj & SVM_EVTINJ_VALID;
	struct worker_entry entry = {
		.nested_root = control->nested_cr3, .tag = control->asid,
		.nested = tdp_enabled ? WORKER_NPT : WORKER_NO_TDP,
		.cr0 = save->cr0, .cr3 = save->cr3, .cr4 = save->cr4, .efer = save->efer,
		.rip = save->rip, .rax = save->rax, .rbx = regs[VCPU_REGS_RBX], .rcx = regs[VCPU_REGS_RCX],
		.injected = injected ? control->event_inj | (u64)control->event_inj_err << 32 : 0,
		.vcpu = svm->vcpu.vcpu_id, .tlb_control = control->tlb_ctl, .cpl = save->cpl,
	};

	worker_enter_guest(&entry);
	/* What VMRUN consumes. KVM clears tlb_ctl itself. */
	control->event_inj = 0;
	control->exit_int_info = 0;
	control->exit_code = exits[entry.exit];
	control->exit_info_1 = entry.code;
	control->exit_info_2 = entry.address;
	if (entry.exit == WORKER_WRITE_CR3)
		control->exit_info_1 = VCPU_REGS_RBX | BIT_ULL(63);
	else if (entry.exit == WORKER_INVALIDATE_PAGE)
		control->exit_info_1 = entry.address;
	control->next_rip = entry.rip + (entry.advances ? INSTRUCTION_BYTES : 0);
	control->insn_len = entry.bytes_len;
	memcpy(control->insn_bytes, entry.bytes, sizeof(entry.bytes));
	save->rax = entry.rax;
	regs[VCPU_REGS_RBX] = entry.rbx;
	regs[VCPU_REGS_RCX] = entry.rcx;
}

/* What the worker must know of a vCPU's control block between two runs. */
void worker_svm_tags(u32 fd, u64 *tag, u32 *flush)
{
	struct vcpu_svm *svm = to_svm((struct kvm_vcpu *)worker_private_data(fd));

	*tag = svm->vmcb->control.asid;
	*flush = svm->vmcb->control.tlb_ctl;
}
