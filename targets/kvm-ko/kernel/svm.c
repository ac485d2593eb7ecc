// SPDX-License-Identifier: GPL-2.0-only
// VMRUN: the control block and the guest's registers, taken to the processor that the worker is, and back.
#define pr_fmt(fmt) fmt
#include <linux/kvm_host.h>
#include "mmu.h"
#include "svm/svm.h"
#include "worker.h"

extern void *worker_private_data(u32 fd);

/* Stands for __svm_vcpu_run(). */
void worker_svm_vcpu_run(struct vcpu_svm *svm, bool spec_ctrl_intercepted)
{
	struct vmcb_control_area *control = &svm->vmcb->control;
	struct vmcb_save_area *save = &svm->vmcb->save;
	unsigned long *regs = svm->vcpu.arch.regs;
	struct worker_vmrun state = {
		.nested_root = control->nested_cr3, .nested = control->nested_ctl & SVM_NESTED_CTL_NP_ENABLE,
		.cr0 = save->cr0, .cr3 = save->cr3, .cr4 = save->cr4, .efer = save->efer,
		.rip = save->rip, .rax = save->rax, .rbx = regs[VCPU_REGS_RBX], .rcx = regs[VCPU_REGS_RCX],
		.injected = control->event_inj & SVM_EVTINJ_VALID ? control->event_inj | (u64)control->event_inj_err << 32 : 0,
		.vcpu = svm->vcpu.vcpu_id, .asid = control->asid, .tlb_control = control->tlb_ctl, .cpl = save->cpl,
	};

	worker_enter_guest(&state);
	/* What VMRUN consumes. KVM clears tlb_ctl itself. */
	control->event_inj = 0;
	control->exit_int_info = 0;
	control->exit_code = state.exit_code;
	control->exit_info_1 = state.info_1;
	control->exit_info_2 = state.info_2;
	control->next_rip = state.next_rip;
	control->insn_len = state.bytes_len;
	memcpy(control->insn_bytes, state.bytes, sizeof(state.bytes));
	save->rip = state.rip;
	save->rax = state.rax;
	regs[VCPU_REGS_RBX] = state.rbx;
	regs[VCPU_REGS_RCX] = state.rcx;
}

/* What the worker must know of a vCPU's control block between two runs. */
void worker_svm_tags_of(u32 fd, u32 *asid, u32 *flush)
{
	struct vcpu_svm *svm = to_svm((struct kvm_vcpu *)worker_private_data(fd));

	*asid = svm->vmcb->control.asid;
	*flush = svm->vmcb->control.tlb_ctl;
}
