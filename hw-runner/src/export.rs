//! A program as source code that needs nothing of this project: what a kernel developer runs, mails, or makes a test of.
//!
//! What each op must come to is worked out here, by the reference model, and stands in the source. So the source says PASS
//! wherever KVM keeps the promise that every name of a frame is that frame.

use crate::alias_method::AliasMethod;
use crate::machine::end_of_fault;
use crate::support::supports;
use gpa_model::limits::HOST_PAGES;
use gpa_model::text::{print, print_op};
use gpa_model::{
    Access, Allowed, Exit, FrameSet, Gpa, Host, HostPage, Model, Op, Pfn, Program, Reclaim, SlotChange, SlotFlags,
    VmConfig,
};
use std::fmt::Write;

/// The C that is the same for every program.
const RUNTIME: &str = include_str!("export/runtime.c");
/// The C for those that hold faults open.
const HELD: &str = include_str!("export/held.c");
/// How dirty pages are told: by a bitmap for each memslot, or by a ring for each vCPU.
const BITMAPS: &str = include_str!("export/bitmaps.c");
const RINGS: &str = include_str!("export/rings.c");
/// What only some alias methods have, and what stands for it elsewhere.
const PROTECTED: &str = include_str!("export/protected.c");
const BELLS: &str = include_str!("export/bells.c");
const NOTHING_PRIVATE: &str = include_str!("export/nothing_private.c");
const NO_BELLS: &str = include_str!("export/no_bells.c");

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// One C file that runs against `/dev/kvm`, with no headers but the C library's and the kernel's.
    C,
    /// A Rust test that runs the program by this crate.
    Rust,
    /// A skeleton in the style of the kernel's KVM selftests, to be finished by hand.
    Selftest,
}

/// `program` as source code, with its aliases made by `alias_method`.
pub fn export(program: &Program, alias_method: AliasMethod, language: Language) -> String {
    match language {
        Language::C => c(program, alias_method),
        Language::Rust => rust(program, alias_method),
        Language::Selftest => selftest(program, alias_method),
    }
}

/// Whether real KVM can carry out any of `program`; otherwise its source would pass and mean nothing.
pub fn is_worthwhile(program: &Program) -> bool {
    !steps(program, AliasMethod::default(), false).is_empty()
}

/// One op that is carried out, with what it must come to.
struct Step<'a> {
    at: usize,
    op: &'a Op,
    allowed: Allowed,
    host: Host,
    /// The host page that a fault waits for from here on.
    awaits: Option<HostPage>,
}

/// Go through what real KVM can carry out of `program`; the rest is left out, for the model too. Where none is to be held open, a fault
/// is over at once.
fn steps(program: &Program, alias_method: AliasMethod, holds: bool) -> Vec<Step<'_>> {
    // What only a kernel that strips stolen bits can do is not written down.
    let alias_method = if alias_method == AliasMethod::Native { AliasMethod::default() } else { alias_method };
    let (mut host, mut model) = (Host::default(), Model::new(&program.vm));
    let mut steps = Vec::new();
    for (at, op) in program.ops.iter().enumerate() {
        let private = matches!(op, Op::Slot { id, .. } if id.is_internal());
        if private || !supports(&program.vm, op, alias_method) || !model.accepts(&host, op) {
            continue;
        }
        host.apply(op);
        // A right KVM does what the guest is entitled to.
        let wanted = model.clone().step(&host, op, &Exit::Done);
        let exit = wanted.memory.map_or(Exit::Done, Exit::Memory);
        // Of a fault that is held open it is what it may come to where it cannot be.
        let allowed = model.clone().step(&host, op, &exit);
        let held = holds && end_of_fault(program, at).is_some() && allowed.mmio.is_none();
        let awaits = allowed.memory.filter(|_| held).and_then(|pfn| page_of(&host, pfn));
        model.step(&host, op, if awaits.is_some() { &Exit::Pending } else { &exit });
        steps.push(Step { at, op, allowed, host: host.clone(), awaits });
    }
    steps
}

/// The host page that `pfn` is now.
fn page_of(host: &Host, pfn: Pfn) -> Option<HostPage> {
    (0..HOST_PAGES as u64).map(HostPage::new).find(|hva| host.pfn(*hva) == pfn)
}

fn c(program: &Program, alias_method: AliasMethod) -> String {
    let vm = &program.vm;
    let bits: Vec<String> = vm.stolen().bits().iter().map(u8::to_string).collect();
    let mut out = comment(program, " * ", "/*\n", " */\n");
    for (name, value) in [
        ("BASE", format!("{:#x}UL", vm.base().raw())),
        ("VCPUS", vm.vcpus().to_string()),
        ("ALIASES", vm.stolen().alias_count().to_string()),
        ("EACH", alias_method.slots(vm).to_string()),
        ("MAPPINGS", alias_method.mappings().to_string()),
        ("GUEST_PTES", u8::from(matches!(alias_method, AliasMethod::GuestPtes | AliasMethod::SwProtected)).to_string()),
        ("SMM", u8::from(alias_method == AliasMethod::Smm).to_string()),
        ("PROTECTED", u8::from(alias_method == AliasMethod::SwProtected).to_string()),
        ("IOEVENTFDS", u8::from(alias_method == AliasMethod::Ioeventfds).to_string()),
        ("ZAP_SLOT", u8::from(!vm.slot_zap_all()).to_string()),
    ] {
        let _ = writeln!(out, "#define {name} {value}");
    }
    // An array of no bits would be no C; bit 63 is in no GPA.
    let bits = if bits.is_empty() { "63".to_owned() } else { bits.join(", ") };
    let _ = writeln!(out, "static const int STOLEN[] = {{ {bits} }};\n\n{RUNTIME}");
    let either = |is: AliasMethod, this, other| if alias_method == is { this } else { other };
    let log = either(AliasMethod::Rings, RINGS, BITMAPS);
    let private = either(AliasMethod::SwProtected, PROTECTED, NOTHING_PRIVATE);
    let _ = writeln!(out, "{log}\n{private}\n{}", either(AliasMethod::Ioeventfds, BELLS, NO_BELLS));
    // Private memory has no hva for a fault to wait for.
    let steps = steps(program, alias_method, alias_method != AliasMethod::SwProtected);
    if steps.iter().any(|step| step.awaits.is_some()) {
        let _ = writeln!(out, "{HELD}");
    }
    let _ = writeln!(out, "static void program(void)\n{{");
    for step in steps {
        let _ = writeln!(out, "\t/* {} */\n\t{}", print_op(vm, step.op), c_call(vm, &step));
    }
    out.push_str(UNUSED);
    out.push_str(either(AliasMethod::SwProtected, "\t(void)attributes_;\n}\n", "}\n"));
    out
}

/// Functions that this program may not call are no reason for a warning.
const UNUSED: &str = "\t(void)slot_create, (void)slot_delete, (void)slot_move, (void)slot_flags, (void)unmap, (void)prot_none, (void)access_;\n\
                      \t(void)dirty_get, (void)dirty_clear, (void)left_out;\n";

fn c_call(vm: &VmConfig, step: &Step<'_>) -> String {
    let Step { at, op, allowed, host, .. } = step;
    match **op {
        Op::Slot { id, change } => match change {
            SlotChange::Create { gfn, pages, hva, flags } => {
                format!("slot_create({id}, {gfn}, {pages}, {}, {});", hva.page(), c_flags(flags))
            }
            SlotChange::Delete => format!("slot_delete({id});"),
            SlotChange::Move { gfn } => format!("slot_move({id}, {gfn});"),
            SlotChange::Flags(flags) => format!("slot_flags({id}, {});", c_flags(flags)),
        },
        Op::FaultBegin { vcpu, gpa, access } if step.awaits.is_some() => {
            let (name, memory) = (c_name(vm, gpa), c_page(allowed.memory));
            let (kind, expected) = (access.name().to_uppercase(), expected(allowed));
            let page = step.awaits.map_or(0, HostPage::page);
            format!("fault_begin({at}, {vcpu}, {kind}, {name}, {page}, {memory}, \"{expected}\");")
        }
        Op::FaultEnd { .. } => format!("fault_end({}, \"{}\");", c_page(allowed.memory), expected(allowed)),
        Op::Access { vcpu, gpa, access } | Op::FaultBegin { vcpu, gpa, access } => {
            let (name, memory) = (c_name(vm, gpa), c_page(allowed.memory));
            let mmio = allowed.mmio.map_or("NONE".into(), |gfn| gfn.to_string());
            let (error, kind) = (u8::from(allowed.error), access.name().to_uppercase());
            format!("access_({at}, {vcpu}, {kind}, {name}, {memory}, {mmio}, {error}, \"{}\");", expected(allowed))
        }
        Op::Unmap { range, by } => {
            let reclaim = c_driver(by.unwrap_or(crate::reclaim::DEFAULT));
            format!("unmap({at}, {reclaim}, {}, {}, {});", range.start.page(), range.pages, host.pfn(range.start).raw())
        }
        Op::ProtNone { range } => format!("prot_none({}, {});", range.start.page(), range.pages),
        Op::DirtyGet { id } => {
            let (must, may) = allowed.dirty.unwrap_or((FrameSet::EMPTY, FrameSet::ALL));
            let (must, may) = (must.bits(), may.bits());
            format!("dirty_get({at}, {id}, {must:#x}UL, {may:#x}UL, \"all of {must:#x} and none but {may:#x}\");")
        }
        Op::Attributes { gfn, pages, private } => format!("attributes_({gfn}, {pages}, {});", u8::from(private)),
        Op::DirtyClear { id, gfn, pages } => format!("dirty_clear({id}, {gfn}, {pages});"),
        // Not every KVM can be asked.
        _ => format!("left_out({at});"),
    }
}

/// A gfn, and the number of the alias under which it is named.
fn c_name(vm: &VmConfig, gpa: Gpa) -> String {
    let (gfn, alias) = vm.stolen().split(gpa);
    format!("{gfn}, {}", vm.stolen().alias_index(alias))
}

fn c_page(pfn: Option<Pfn>) -> String {
    pfn.map_or("NONE".into(), |pfn| pfn.raw().to_string())
}

/// What an access may come to, in words.
fn expected(allowed: &Allowed) -> String {
    let memory = allowed.memory.map(|pfn| format!("page {:#x}", pfn.raw()));
    let mmio = allowed.mmio.map(|gfn| format!("an exit for frame {gfn}"));
    let error = allowed.error.then(|| "a failure".to_owned());
    let words: Vec<String> = [memory, mmio, error].into_iter().flatten().collect();
    words.join(" or ")
}

fn c_flags(flags: SlotFlags) -> &'static str {
    match (flags.readonly, flags.log_dirty) {
        (false, false) => "0",
        (true, false) => "KVM_MEM_READONLY",
        (false, true) => "KVM_MEM_LOG_DIRTY_PAGES",
        (true, true) => "KVM_MEM_READONLY | KVM_MEM_LOG_DIRTY_PAGES",
    }
}

const fn c_driver(reclaim: Reclaim) -> &'static str {
    match reclaim {
        Reclaim::Dontneed => "DONTNEED",
        Reclaim::Mremap => "MREMAP",
        Reclaim::Munmap => "MUNMAP",
        Reclaim::Mprotect => "MPROTECT",
        Reclaim::MprotectRead => "MPROTECT_READ",
        Reclaim::PunchHole => "PUNCH_HOLE",
        Reclaim::Fork => "FORK",
        Reclaim::Collapse => "COLLAPSED",
        Reclaim::Pageout => "PAGEOUT",
        Reclaim::Cold => "COLD",
        Reclaim::Guard => "GUARD",
        Reclaim::UffdWriteProtect => "UFFD_WP",
        Reclaim::UffdCopy => "UFFD_COPY",
    }
}

/// The whole program as a comment, whose lines begin with `line`.
fn comment(program: &Program, line: &str, open: &str, close: &str) -> String {
    // What people wrote may hold what ends a comment of C.
    let text = print(program).replace("*/", "* /").replace("/*", "/ *");
    let lines: String = text.lines().map(|text| format!("{line}{text}\n")).collect();
    format!("{open}{lines}{close}")
}

fn rust(program: &Program, alias_method: AliasMethod) -> String {
    let text: String = print(program).lines().map(|line| format!("    {line:?},\n")).collect();
    format!(
        "//! A program of GPA aliasing that must be clean on this host's /dev/kvm.\n\n\
         use gpa_model::text;\nuse gpa_oracles::{{Lockstep, report}};\nuse hw_runner::{{Machine, AliasMethod, Replay}};\n\n\
         const PROGRAM: &[&str] = &[\n{text}];\n\n\
         #[test]\nfn every_name_of_a_frame_is_that_frame() {{\n\
         \x20   let program = text::parse(&PROGRAM.join(\"\\n\")).expect(\"a program\");\n\
         \x20   let alias_method = AliasMethod::named(\"{alias_method}\").expect(\"an alias method\");\n\
         \x20   let mut machine = match Machine::open_with(alias_method) {{\n\
         \x20       Ok(machine) => machine,\n\
         \x20       Err(error) if error.is_absence() => return println!(\"SKIPPED: {{error}}\"),\n\
         \x20       Err(error) => panic!(\"{{error}}\"),\n\
         \x20   }};\n\
         \x20   let mut replay = Replay::default();\n\
         \x20   replay.load(machine.run(&program).expect(\"a run\"));\n\
         \x20   let (report, violation) = report(&mut Lockstep::default(), &mut replay, &program, \"kvm\");\n\
         \x20   assert!(violation.is_none(), \"{{report}}\");\n\
         }}\n"
    )
}

fn selftest(program: &Program, alias_method: AliasMethod) -> String {
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
                // A hole is answered by user space.
                let found = step.allowed.memory.map_or("MMIO_VALUE".into(), |pfn| format!("IDENTITY({})", pfn.raw()));
                let call = match access {
                    Access::Read => format!("GUEST_ASSERT_EQ(READ_ONCE(*(u64 *)GVA({name:#x})), {found});"),
                    Access::Write => format!("WRITE_ONCE(*(u64 *)GVA({name:#x}), {stage});"),
                    Access::Execute => format!("((void (*)(void))GVA({name:#x}))();"),
                };
                let _ = writeln!(out, "\t/* vCPU {vcpu}: {} */\n\t{call}", expected(&step.allowed));
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
            writeln!(out, "\tcase {stage}:\n\t\t/* {} */\n\t\t{}\n\t\tbreak;", print_op(vm, step.op), c_call(vm, step));
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
