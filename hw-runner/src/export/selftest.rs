//! A program as a skeleton in the style of the kernel's KVM selftests.

use super::c::call;
use super::steps::{comment, expected, steps};
use crate::kvm::alias_method::AliasMethod;
use gpa_model::text::print_op;
use gpa_model::{Access, Op, Program};
use std::fmt::Write;

pub(super) fn source(program: &Program, alias_method: AliasMethod) -> String {
    let vm = &program.vm;
    let mut out = comment(program, " * ", "/*\n", " */\n");
    let _ = write!(
        out,
        "#include \"test_util.h\"\n#include \"kvm_util.h\"\n#include \"processor.h\"\n\n\
         /* TODO: memory for the pages of `hva=`, and guest mappings of every name (aliases by {alias_method}). */\n\
         static void guest_code(void)\n{{\n"
    );
    let steps = steps(program, alias_method, false);
    for (stage, step) in steps.iter().enumerate() {
        match *step.op {
            Op::Access { vcpu, gpa, access } | Op::FaultBegin { vcpu, gpa, access } => {
                let name = gpa.raw();
                // User space answers accesses to a hole.
                let found = step.allowed.memory.map_or("MMIO_VALUE".into(), |pfn| format!("IDENTITY({})", pfn.raw()));
                let access = match access {
                    Access::Read => format!("GUEST_ASSERT_EQ(READ_ONCE(*(u64 *)GVA({name:#x})), {found});"),
                    Access::Write => format!("WRITE_ONCE(*(u64 *)GVA({name:#x}), {stage});"),
                    Access::Execute => format!("((void (*)(void))GVA({name:#x}))();"),
                };
                let _ = writeln!(out, "\t/* vCPU {vcpu}: {} */\n\t{access}", expected(&program.vm, &step.allowed));
            }
            _ => {
                let _ = writeln!(out, "\tGUEST_SYNC({stage});\t/* {} */", print_op(vm, step.op));
            }
        }
    }
    out.push_str("\tGUEST_DONE();\n}\n\nstatic void host_stage(struct kvm_vm *vm, int stage)\n{\n\tswitch (stage) {\n");
    for (stage, step) in
        steps.iter().enumerate().filter(|(_, step)| !matches!(step.op, Op::Access { .. } | Op::FaultBegin { .. }))
    {
        let _ =
            writeln!(out, "\tcase {stage}:\n\t\t/* {} */\n\t\t{}\n\t\tbreak;", print_op(vm, step.op), call(vm, step));
    }
    out.push_str(
        "\t}\n}\n\nint main(void)\n{\n\tstruct kvm_vcpu *vcpu;\n\tstruct kvm_vm *vm;\n\tstruct ucall uc;\n\n\
         \tvm = vm_create_with_one_vcpu(&vcpu, guest_code);\n\
         \tfor (;;) {\n\t\tvcpu_run(vcpu);\n\t\tswitch (get_ucall(vcpu, &uc)) {\n\
         \t\tcase UCALL_SYNC:\n\t\t\thost_stage(vm, uc.args[1]);\n\t\t\tbreak;\n\
         \t\tcase UCALL_DONE:\n\t\t\tkvm_vm_free(vm);\n\t\t\treturn 0;\n\
         \t\tdefault:\n\t\t\tREPORT_GUEST_ASSERT(uc);\n\t\t}\n\t}\n}\n",
    );
    out
}
