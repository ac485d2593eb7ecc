//! A program as one C file. Most of it is a runtime that all programs share.

use super::steps::{Step, comment, expected, steps};
use crate::host::reclaim;
use crate::kvm::alias_method::AliasMethod;
use gpa_model::text::print_op;
use gpa_model::{FrameSet, Gpa, HostPage, Op, Pfn, Program, Reclaim, SlotChange, SlotFlags, VmConfig};
use std::fmt::Write;

/// The runtime that all programs share.
const RUNTIME: &str = include_str!("c/runtime.c");
/// The part for programs that hold faults.
const HELD: &str = include_str!("c/held.c");
/// The dirty log: a bitmap per memslot, or a ring per vCPU.
const BITMAPS: &str = include_str!("c/bitmaps.c");
const RINGS: &str = include_str!("c/rings.c");
/// Parts that some alias methods have, and what replaces them in others.
const PRIVATE_MEMORY: &str = include_str!("c/private_memory.c");
const IOEVENTFDS: &str = include_str!("c/ioeventfds.c");
const NO_PRIVATE_MEMORY: &str = include_str!("c/no_private_memory.c");
const NO_IOEVENTFDS: &str = include_str!("c/no_ioeventfds.c");

pub(super) fn source(program: &Program, alias_method: AliasMethod) -> String {
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
    // C forbids empty arrays; bit 63 is in no GPA.
    let bits = if bits.is_empty() { "63".to_owned() } else { bits.join(", ") };
    let _ = writeln!(out, "static const int STOLEN[] = {{ {bits} }};\n\n{RUNTIME}");
    let either = |is: AliasMethod, this, other| if alias_method == is { this } else { other };
    let log = either(AliasMethod::Rings, RINGS, BITMAPS);
    let private = either(AliasMethod::SwProtected, PRIVATE_MEMORY, NO_PRIVATE_MEMORY);
    let _ = writeln!(out, "{log}\n{private}\n{}", either(AliasMethod::Ioeventfds, IOEVENTFDS, NO_IOEVENTFDS));
    // Private memory has no hva to hold a fault on.
    let steps = steps(program, alias_method, alias_method != AliasMethod::SwProtected);
    if steps.iter().any(|step| step.awaits.is_some()) {
        let _ = writeln!(out, "{HELD}");
    }
    let _ = writeln!(out, "static void program(void)\n{{");
    for step in steps {
        let _ = writeln!(out, "\t/* {} */\n\t{}", print_op(vm, step.op), call(vm, &step));
    }
    out.push_str(UNUSED);
    out.push_str(either(AliasMethod::SwProtected, "\t(void)attributes_;\n}\n", "}\n"));
    out
}

/// No warnings for functions that this program does not call.
const UNUSED: &str = "\t(void)slot_create, (void)slot_delete, (void)slot_move, (void)slot_flags, (void)unmap, (void)prot_none, (void)access_;\n\
                      \t(void)dirty_get, (void)dirty_clear, (void)left_out;\n";

/// The call that carries out one step.
pub(super) fn call(vm: &VmConfig, step: &Step<'_>) -> String {
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
            let (kind, expected) = (access.name().to_uppercase(), expected(vm, allowed));
            let page = step.awaits.map_or(0, HostPage::page);
            format!("fault_begin({at}, {vcpu}, {kind}, {name}, {page}, {memory}, \"{expected}\");")
        }
        Op::FaultEnd { .. } => format!("fault_end({}, \"{}\");", c_page(allowed.memory), expected(vm, allowed)),
        Op::Access { vcpu, gpa, access } | Op::FaultBegin { vcpu, gpa, access } => {
            let (name, memory) = (c_name(vm, gpa), c_page(allowed.memory));
            let mmio = allowed.mmio.map_or("NONE".into(), |gpa| vm.stolen().split(gpa).0.to_string());
            let (error, kind) = (u8::from(allowed.error), access.name().to_uppercase());
            format!("access_({at}, {vcpu}, {kind}, {name}, {memory}, {mmio}, {error}, \"{}\");", expected(vm, allowed))
        }
        Op::Unmap { range, by } => {
            let reclaim = c_driver(by.unwrap_or(reclaim::DEFAULT));
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
        // Not every KVM offers it.
        _ => format!("left_out({at});"),
    }
}

/// A gfn and an alias number.
fn c_name(vm: &VmConfig, gpa: Gpa) -> String {
    let (gfn, alias) = vm.stolen().split(gpa);
    format!("{gfn}, {}", vm.stolen().alias_index(alias))
}

fn c_page(pfn: Option<Pfn>) -> String {
    pfn.map_or("NONE".into(), |pfn| pfn.raw().to_string())
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
