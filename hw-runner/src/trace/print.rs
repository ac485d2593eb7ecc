//! Prints a trace.

use super::{ARROW, INSIDE, LONG_HEADER, MAGIC, OTHER, Trace, WATCHED};
use gpa_model::text::print_gpa;
use gpa_model::{Exit, Fault, VmConfig};
use std::fmt::Write;

/// The trace as text, ending in a newline.
pub fn print(trace: &Trace) -> String {
    let fingerprint = &trace.fingerprint;
    let version = if trace.seen.is_empty() { LONG_HEADER } else { WATCHED };
    let mut out = format!("{MAGIC} {version}\n");
    let _ = writeln!(out, "cpu {}\nkernel {}\nmodule {}", fingerprint.cpu, fingerprint.kernel, fingerprint.module);
    words(&mut out, "parameters", &fingerprint.parameters);
    let _ = writeln!(out, "paging {}\nmaxphyaddr {}", fingerprint.paging, fingerprint.maxphyaddr);
    words(&mut out, "capabilities", &fingerprint.capabilities);
    let native = if fingerprint.native { "yes" } else { "no" };
    let _ = writeln!(out, "realisation {}\nnative {native}", fingerprint.alias_method);
    words(&mut out, "witness", &fingerprint.witness);
    let _ = writeln!(out, "samples {}", trace.samples);
    let program = gpa_model::text::print(&trace.program);
    // The program's first line is its version; its last lines are the ops, one each.
    let lines: Vec<&str> = program.lines().skip(1).collect();
    let first_op = lines.len() - trace.program.ops.len();
    for (number, line) in lines.iter().enumerate() {
        let _ = writeln!(out, "{line}");
        let Some(at) = number.checked_sub(first_op) else { continue };
        if let Some(exit) = trace.observation(at) {
            let _ = writeln!(out, "  {ARROW} {}", print_observation(&trace.program.vm, &exit));
        }
        for variant in trace.variants.iter().filter(|variant| variant.at == at) {
            let exit = print_observation(&trace.program.vm, &variant.exit);
            let _ = writeln!(out, "  {OTHER} {} {exit}", variant.times);
        }
        for seen in trace.seen.get(at).into_iter().flatten() {
            let _ = writeln!(out, "  {INSIDE} {}", super::mmu_event::print(&trace.program.vm, seen));
        }
    }
    out
}

fn words(out: &mut String, key: &str, words: &[String]) {
    out.push_str(key);
    for word in words {
        out.push(' ');
        out.push_str(word);
    }
    out.push('\n');
}

/// One observation, without the arrow.
pub fn print_observation(vm: &VmConfig, exit: &Exit) -> String {
    let name = exit.name();
    match exit {
        Exit::Memory(pfn) | Exit::Emulated(pfn) => format!("{name} {}", pfn.raw()),
        Exit::Mmio(gpa) | Exit::Translated(gpa) | Exit::PageReady(gpa) => format!("{name} {}", print_gpa(vm, *gpa)),
        // The default is a fault on an entry that is not present.
        Exit::GuestFault(fault) if *fault != Fault::NotPresent => format!("{name} {}", fault.name()),
        Exit::Dirty(frames) if frames.is_empty() => format!("{name} none"),
        Exit::Dirty(frames) => frames.iter().fold(name.to_owned(), |out, frame| format!("{out} {}", vm.gfn(frame))),
        Exit::Young(young) => format!("{name} {}", if *young { "yes" } else { "no" }),
        Exit::Done
        | Exit::GuestFault(_)
        | Exit::Retry
        | Exit::Pending
        | Exit::Error
        | Exit::MemoryFault
        | Exit::NotFound
        | Exit::RingFull
        | Exit::PageNotPresent
        | Exit::Halted
        | Exit::Refused
        | Exit::Interrupted
        | Exit::Unsupported => name.to_owned(),
    }
}
