//! Printing a program, and single ops for reports.

use super::{MAGIC, VERSION};
use crate::addr::{Gfn, Gpa};
use crate::program::vm_option::VmOption;
use crate::program::{GpteFlags, HostPageRange, Op, Program, SlotChange, SlotFlags, VmConfig};
use std::fmt::Write;

/// The program as text, ending in a newline.
pub fn print(program: &Program) -> String {
    let mut out = format!("{MAGIC} {VERSION}\n");
    for line in &program.comment {
        out.push('#');
        if !line.is_empty() {
            out.push(' ');
        }
        out.push_str(line);
        out.push('\n');
    }
    let vm = &program.vm;
    out.push_str("vm stolen=");
    if vm.stolen().bits().is_empty() {
        out.push_str("none");
    }
    for (i, bit) in vm.stolen().bits().iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(out, "{comma}{bit}");
    }
    let _ = write!(out, " vcpus={} base={} flush={}", vm.vcpus(), vm.base(), vm.backend().name());
    for option in VmOption::ALL.iter().filter(|option| !option.is_usual(vm)) {
        let _ = write!(out, " {}={}", option.key, option.value(vm));
    }
    out.push('\n');
    for op in &program.ops {
        out.push_str(&print_op(vm, op));
        out.push('\n');
    }
    out
}

/// A GPA as `gfn` or `gfn@alias`.
pub fn print_gpa(vm: &VmConfig, gpa: Gpa) -> String {
    let (gfn, alias) = vm.stolen().split(gpa);
    if alias.is_none() { gfn.to_string() } else { format!("{gfn}@{}", vm.stolen().alias_index(alias)) }
}

/// One op as its line.
pub fn print_op(vm: &VmConfig, op: &Op) -> String {
    let gpa = |gpa| print_gpa(vm, gpa);
    match *op {
        Op::Slot { id, change } => format!("slot {id} {}", print_change(&change)),
        Op::SlotBegin { id, change } => format!("slot-begin {id} {}", print_change(&change)),
        Op::SlotAliased { id, gpa: at, pages, hva } => {
            format!("slot {id} create gfn={} pages={pages} hva={:#x}", gpa(at), hva.page())
        }
        Op::SlotEnd => "slot-end".into(),
        Op::Access { vcpu, gpa: at, access } => format!("v{vcpu} {} {}", access.name(), gpa(at)),
        Op::FaultBegin { vcpu, gpa: at, access } => format!("v{vcpu} fault-begin {} {}", access.name(), gpa(at)),
        Op::Prefault { vcpu, gpa: at } => format!("v{vcpu} prefault {}", gpa(at)),
        Op::FaultEnd { vcpu } => format!("v{vcpu} fault-end"),
        Op::Unmap { range, by: None } => format!("unmap {}", print_range(range)),
        Op::Unmap { range, by: Some(reclaim) } => format!("unmap {} by={}", print_range(range), reclaim.name()),
        Op::UnmapBegin { window, range } => format!("unmap-begin w{window} {}", print_range(range)),
        Op::UnmapEnd { window } => format!("unmap-end w{window}"),
        Op::Collapse { range } => format!("collapse {}", print_range(range)),
        Op::PageOut { range } => format!("page-out {}", print_range(range)),
        Op::ProtNone { range } => format!("prot-none {}", print_range(range)),
        Op::PageIn { range } => format!("page-in {}", print_range(range)),
        Op::Age { range } => format!("age {}", print_range(range)),
        Op::DirtyGet { id } => format!("dirty-get {id}"),
        Op::DirtyClear { id, gfn, pages } => format!("dirty-clear {id} gfn={gfn} pages={pages}"),
        Op::WriteProtect { gfn } => format!("write-protect gfn={gfn}"),
        Op::WriteTrack { gfn } => format!("track gfn={gfn}"),
        Op::WriteUntrack { gfn } => format!("untrack gfn={gfn}"),
        Op::Attributes { gfn, pages, private } => print_attributes("attributes", gfn, pages, private),
        Op::AttributesBegin { gfn, pages, private } => print_attributes("attributes-begin", gfn, pages, private),
        Op::AttributesEnd => "attributes-end".into(),
        Op::MemoryType { gfn, pages, memory } => format!("memory-type gfn={gfn} pages={pages} {}", memory.name()),
        Op::ZapBegin { gfn, pages, leaves } => format!("zap-begin gfn={gfn} pages={pages} yield={leaves}"),
        Op::ZapEnd => "zap-end".into(),
        Op::NxRecover => "nx-recover".into(),
        Op::MmuPages { pages } => format!("mmu-pages {pages}"),
        Op::Backend(mode) => format!("backend {}", mode.name()),
        Op::Translate { vcpu, table, leaf } => format!("v{vcpu} translate table={} leaf={}", gpa(table), gpa(leaf)),
        Op::WriteGpte { vcpu, gpa: at, index, gpte } => {
            let flags = gpte_words(gpte.flags());
            format!("v{vcpu} write-gpte {} index={index} gpa={}{flags}", gpa(at), gpa(gpte.gpa()))
        }
        Op::GuestWalk { vcpu, root, gva, access } | Op::GuestAccess { vcpu, root, gva, access } => {
            let indices: Vec<String> = gva.indices(vm.paging().levels()).map(|index| index.to_string()).collect();
            let (kind, indices) = (op.kind().name(), indices.join("."));
            format!("v{vcpu} {kind} {} root={} gva={indices}", access.name(), gpa(root))
        }
        Op::GuestFlush { vcpu } => format!("v{vcpu} guest-flush"),
        Op::PageReady { vcpu } => format!("v{vcpu} page-ready"),
        Op::AsyncPfClear { vcpu } => format!("v{vcpu} async-pf-clear"),
    }
}

fn gpte_words(flags: GpteFlags) -> String {
    let set = GpteFlags::NAMES.iter().filter(|(flag, _)| flags.contains(*flag));
    set.map(|(_, name)| format!(" {name}")).collect()
}

fn print_attributes(op: &str, gfn: Gfn, pages: u32, private: bool) -> String {
    format!("{op} gfn={gfn} pages={pages} {}", if private { "private" } else { "shared" })
}

fn print_range(range: HostPageRange) -> String {
    format!("hva={:#x} pages={}", range.start.page(), range.pages)
}

fn print_change(change: &SlotChange) -> String {
    match change {
        SlotChange::Create { gfn, pages, hva, flags } => {
            let words = flag_words(*flags);
            format!("create gfn={gfn} pages={pages} hva={:#x}{words}", hva.page())
        }
        SlotChange::Delete => "delete".into(),
        SlotChange::Move { gfn } => format!("move gfn={gfn}"),
        SlotChange::Flags(flags) => {
            let words = flag_words(*flags);
            if words.is_empty() { "flags none".into() } else { format!("flags{words}") }
        }
    }
}

fn flag_words(flags: SlotFlags) -> &'static str {
    match (flags.readonly, flags.log_dirty) {
        (false, false) => "",
        (true, false) => " readonly",
        (false, true) => " log-dirty",
        (true, true) => " readonly log-dirty",
    }
}
