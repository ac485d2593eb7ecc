// SPDX-License-Identifier: GPL-2.0-only
// VMX: a VMCS as an array, VMLAUNCH as a call of the processor that the worker is, and what the capability registers say.
#define pr_fmt(fmt) fmt
#include <linux/kvm_host.h>
#include "mmu.h"
#include "vmx/vmx.h"
#include "worker.h"

extern void *worker_private_data(u32 fd);

/*
 * A field lies in the VMCS behind its header, by its index, type and width. VMREAD and VMWRITE of kvm-intel become jumps to code that
 * pushes the field, and for VMWRITE the value before it, and calls one of these: they change no register.
 */
asm(".pushsection .text\n"
    ".macro FIELD\n"
    "push %rax; push %rcx; push %rdx\n"
    "mov 32(%rsp), %rax\n"
    "mov %eax, %ecx; shr $1, %ecx; and $31, %ecx\n"
    "mov %eax, %edx; shr $5, %edx; and $0x60, %edx; or %edx, %ecx\n"
    "shr $6, %eax; and $0x180, %eax; or %eax, %ecx\n"
    "mov %gs:current_vmcs, %rdx\n"
    ".endm\n"
    ".globl worker_vmread\n"
    "worker_vmread: FIELD; mov 8(%rdx, %rcx, 8), %rax; mov %rax, 32(%rsp); pop %rdx; pop %rcx; pop %rax; ret\n"
    ".globl worker_vmwrite\n"
    "worker_vmwrite: FIELD; mov 40(%rsp), %rax; mov %rax, 8(%rdx, %rcx, 8); pop %rdx; pop %rcx; pop %rax; ret\n"
    ".popsection");

static u64 *field(u32 encoding)
{
	u32 index = (encoding >> 6 & 0x180) | (encoding >> 5 & 0x60) | (encoding >> 1 & 31);

	return (u64 *)this_cpu_read(current_vmcs)->data + index;
}

/* Bytes of the guest's instruction, as `mov %rbx, %cr3`. */
#define INSTRUCTION_BYTES 3

static u64 injected(void)
{
	u64 info = *field(VM_ENTRY_INTR_INFO_FIELD);

	return info & INTR_INFO_VALID_MASK ? (info & INTR_INFO_VECTOR_MASK) | *field(VM_ENTRY_EXCEPTION_ERROR_CODE) << 32 : 0;
}

/* Stands for __vmx_vcpu_run(), whose other arguments differ from one kernel to the next. */
bool worker_vmx_vcpu_run(struct vcpu_vmx *vmx)
{
	unsigned long *regs = vmx->vcpu.arch.regs;
	u64 eptp = *field(EPT_POINTER), qualification = 0;
	bool ept = cpu_has_secondary_exec_ctrls() && *field(SECONDARY_VM_EXEC_CONTROL) & SECONDARY_EXEC_ENABLE_EPT;
	struct worker_entry entry = {
		.nested_root = eptp & PAGE_MASK, .tag = ept ? eptp & PAGE_MASK : *field(VIRTUAL_PROCESSOR_ID),
		.nested = !ept ? WORKER_NO_TDP : eptp & VMX_EPTP_AD_ENABLE_BIT ? WORKER_EPT_ACCESSED_DIRTY : WORKER_EPT,
		.cr0 = *field(GUEST_CR0), .cr3 = *field(GUEST_CR3), .cr4 = *field(GUEST_CR4), .efer = vmx->vcpu.arch.efer,
		.rip = *field(GUEST_RIP), .rax = regs[VCPU_REGS_RAX], .rbx = regs[VCPU_REGS_RBX], .rcx = regs[VCPU_REGS_RCX],
		.injected = injected(), .vcpu = vmx->vcpu.vcpu_id, .cpl = *field(GUEST_SS_AR_BYTES) >> 5 & 3,
	};
	u32 reason, info = 0;

	worker_enter_guest(&entry);
	switch (entry.exit) {
	case WORKER_INTERRUPT:
		/* Leaves the guest, and is done with when that has been noticed. */
		reason = EXIT_REASON_INTERRUPT_WINDOW;
		break;
	case WORKER_NESTED_FAULT:
		reason = entry.code & PFERR_RSVD_MASK ? EXIT_REASON_EPT_MISCONFIG : EXIT_REASON_EPT_VIOLATION;
		qualification = entry.code & PFERR_WRITE_MASK ? EPT_VIOLATION_ACC_WRITE :
				entry.code & PFERR_FETCH_MASK ? EPT_VIOLATION_ACC_INSTR : EPT_VIOLATION_ACC_READ;
		qualification |= EPT_VIOLATION_GVA_IS_VALID;
		/* Any of the rights of the entry: KVM asks only whether there are some. */
		qualification |= entry.code & PFERR_PRESENT_MASK ? BIT_ULL(3) : 0;
		qualification |= entry.code & PFERR_GUEST_FINAL_MASK ? EPT_VIOLATION_GVA_TRANSLATED : 0;
		break;
	case WORKER_PAGE_FAULT:
		reason = EXIT_REASON_EXCEPTION_NMI;
		info = PF_VECTOR | INTR_TYPE_HARD_EXCEPTION | INTR_INFO_DELIVER_CODE_MASK | INTR_INFO_VALID_MASK;
		qualification = entry.address;
		break;
	case WORKER_WRITE_CR3:
		/* Control register 3, a move to it, from RBX. */
		reason = EXIT_REASON_CR_ACCESS;
		qualification = 3 | VCPU_REGS_RBX << 8;
		break;
	case WORKER_INVALIDATE_PAGE:
		reason = EXIT_REASON_INVLPG;
		qualification = entry.address;
		break;
	case WORKER_SHUTDOWN:
		reason = EXIT_REASON_TRIPLE_FAULT;
		break;
	default:
		reason = EXIT_REASON_HLT;
	}
	*field(VM_EXIT_REASON) = reason;
	*field(EXIT_QUALIFICATION) = qualification;
	*field(GUEST_PHYSICAL_ADDRESS) = entry.address;
	*field(VM_EXIT_INTR_INFO) = info;
	*field(VM_EXIT_INTR_ERROR_CODE) = entry.code;
	*field(IDT_VECTORING_INFO_FIELD) = 0;
	*field(VM_ENTRY_INTR_INFO_FIELD) &= ~INTR_INFO_VALID_MASK;
	*field(VM_EXIT_INSTRUCTION_LEN) = entry.exit == WORKER_HALT || entry.advances ? INSTRUCTION_BYTES : 0;
	regs[VCPU_REGS_RAX] = entry.rax;
	regs[VCPU_REGS_RBX] = entry.rbx;
	regs[VCPU_REGS_RCX] = entry.rcx;
	return false;
}

void worker_vmx_tags(u32 fd, u64 *tag, u32 *flush)
{
	struct kvm_vcpu *vcpu = worker_private_data(fd);

	*tag = tdp_enabled ? vcpu->arch.mmu->root.hpa : to_vmx(vcpu)->vpid;
	*flush = 0;
}

/* A processor with EPT, unrestricted guests and VPIDs, and little else (SDM, volume 3D, appendix A). */
u64 worker_vmx_msr(u32 msr)
{
	const u32 pin = PIN_BASED_ALWAYSON_WITHOUT_TRUE_MSR, cpu = CPU_BASED_ALWAYSON_WITHOUT_TRUE_MSR;
	const u32 leave = VM_EXIT_ALWAYSON_WITHOUT_TRUE_MSR, enter = VM_ENTRY_ALWAYSON_WITHOUT_TRUE_MSR;

	switch (msr) {
	case MSR_IA32_FEAT_CTL:
		return FEAT_CTL_LOCKED | FEAT_CTL_VMX_ENABLED_OUTSIDE_SMX;
	case MSR_IA32_VMX_BASIC:
		/* Revision 1, a page for a VMCS, write-back. */
		return 1 | (u64)PAGE_SIZE << 32 | 6ull << 50;
	case MSR_IA32_VMX_PINBASED_CTLS:
	case MSR_IA32_VMX_TRUE_PINBASED_CTLS:
		return pin | (u64)(pin | PIN_BASED_EXT_INTR_MASK | PIN_BASED_NMI_EXITING | PIN_BASED_VIRTUAL_NMIS) << 32;
	case MSR_IA32_VMX_PROCBASED_CTLS:
	case MSR_IA32_VMX_TRUE_PROCBASED_CTLS:
		return cpu | (u64)(u32)~(CPU_BASED_ACTIVATE_TERTIARY_CONTROLS | BIT(18) | BIT(0) | BIT(1)) << 32;
	case MSR_IA32_VMX_EXIT_CTLS:
	case MSR_IA32_VMX_TRUE_EXIT_CTLS:
		return leave | (u64)(leave | VM_EXIT_HOST_ADDR_SPACE_SIZE | VM_EXIT_SAVE_IA32_PAT | VM_EXIT_LOAD_IA32_PAT |
			VM_EXIT_SAVE_IA32_EFER | VM_EXIT_LOAD_IA32_EFER | VM_EXIT_SAVE_DEBUG_CONTROLS | VM_EXIT_ACK_INTR_ON_EXIT) << 32;
	case MSR_IA32_VMX_ENTRY_CTLS:
	case MSR_IA32_VMX_TRUE_ENTRY_CTLS:
		return enter | (u64)(enter | VM_ENTRY_LOAD_DEBUG_CONTROLS | VM_ENTRY_IA32E_MODE | VM_ENTRY_LOAD_IA32_PAT |
			VM_ENTRY_LOAD_IA32_EFER) << 32;
	case MSR_IA32_VMX_MISC:
		return VMX_MISC_SAVE_EFER_LMA | VMX_MISC_ACTIVITY_HLT | 5;
	case MSR_IA32_VMX_CR0_FIXED0:
		return X86_CR0_PG | X86_CR0_NE | X86_CR0_PE;
	case MSR_IA32_VMX_CR0_FIXED1:
		return U32_MAX;
	case MSR_IA32_VMX_CR4_FIXED0:
		return X86_CR4_VMXE;
	case MSR_IA32_VMX_CR4_FIXED1:
		return 0x3727ff;
	case MSR_IA32_VMX_PROCBASED_CTLS2:
		return (u64)(SECONDARY_EXEC_ENABLE_EPT | SECONDARY_EXEC_ENABLE_VPID | SECONDARY_EXEC_UNRESTRICTED_GUEST |
			SECONDARY_EXEC_WBINVD_EXITING | SECONDARY_EXEC_ENABLE_RDTSCP | SECONDARY_EXEC_ENABLE_INVPCID) << 32;
	case MSR_IA32_VMX_EPT_VPID_CAP:
		return VMX_EPT_EXECUTE_ONLY_BIT | VMX_EPT_PAGE_WALK_4_BIT | VMX_EPTP_WB_BIT | VMX_EPT_2MB_PAGE_BIT |
			VMX_EPT_1GB_PAGE_BIT | VMX_EPT_INVEPT_BIT | VMX_EPT_AD_BIT | VMX_EPT_EXTENT_CONTEXT_BIT |
			VMX_EPT_EXTENT_GLOBAL_BIT | (u64)(VMX_VPID_INVVPID_BIT | VMX_VPID_EXTENT_INDIVIDUAL_ADDR_BIT |
			VMX_VPID_EXTENT_SINGLE_CONTEXT_BIT | VMX_VPID_EXTENT_GLOBAL_CONTEXT_BIT |
			VMX_VPID_EXTENT_SINGLE_NON_GLOBAL_BIT) << 32;
	}
	return 0;
}
