//! Printing a trace.

use super::{ARROW, MAGIC, Trace, VERSION};
use gpa_model::text::print_gpa;
use gpa_model::{Exit, Vm};
use std::fmt::Write;

/// The trace as text, ending in a newline.
pub fn print(trace: &Trace) -> String {
    let fingerprint = &trace.fingerprint;
    let mut out = format!(
        "{MAGIC} {VERSION}\nmodule {}\npaging {}\nmaxphyaddr {}\ncapabilities",
        fingerprint.module, fingerprint.paging, fingerprint.maxphyaddr
    );
    for capability in &fingerprint.capabilities {
        let _ = write!(out, " {capability}");
    }
    let _ = writeln!(out, "\nnative {}", if fingerprint.native { "yes" } else { "no" });
    let program = gpa_model::text::print(&trace.program);
    // The program's first line is its own version; its last lines are the ops, one each.
    let lines: Vec<&str> = program.lines().skip(1).collect();
    let first_op = lines.len() - trace.program.ops.len();
    for (number, line) in lines.iter().enumerate() {
        let _ = writeln!(out, "{line}");
        if let Some(exit) = number.checked_sub(first_op).and_then(|at| trace.observation(at)) {
            let _ = writeln!(out, "  {ARROW} {}", print_observation(&trace.program.vm, &exit));
        }
    }
    out
}

/// One observation, without the arrow.
pub fn print_observation(vm: &Vm, exit: &Exit) -> String {
    let name = exit.name();
    match exit {
        Exit::Memory(pfn) | Exit::Emulated(pfn) => format!("{name} {}", pfn.raw()),
        Exit::Mmio(gpa) | Exit::Translated(gpa) => format!("{name} {}", print_gpa(vm, *gpa)),
        Exit::Dirty(frames) if frames.is_empty() => format!("{name} none"),
        Exit::Dirty(frames) => frames.iter().fold(name.to_owned(), |out, frame| format!("{out} {}", vm.gfn(frame))),
        Exit::Young(young) => format!("{name} {}", if *young { "yes" } else { "no" }),
        Exit::Done
        | Exit::Retry
        | Exit::Pending
        | Exit::GuestFault
        | Exit::Error
        | Exit::NotFound
        | Exit::Refused
        | Exit::Unsupported => name.to_owned(),
    }
}
