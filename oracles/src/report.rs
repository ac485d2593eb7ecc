//! The report of a program: each op, what the model allows, what the target did, what changed, and where an oracle objects.

use crate::lockstep::{Event, Lockstep};
use crate::step::{Step, Violation};
use gpa_model::limits::MAXPHYADDR_MAX;
use gpa_model::text::{print_gpa, print_op};
use gpa_model::{Allowed, Exit, Fault, Flush, FrameSet, Levels, Logging, Mmu, Program, VmConfig};
use std::fmt::Write;

/// Run `program` on `mmu` and write down what happens. `target` is the name shown.
pub fn report<M: Mmu>(run: &mut Lockstep, mmu: &mut M, program: &Program, target: &str) -> (String, Option<Violation>) {
    let vm = &program.vm;
    let mut out = header(program, target);
    let violation = run.watch(mmu, program, |event| match event {
        Event::Skipped(at, op) => {
            line(&mut out, "   ", at, &print_op(vm, op), "skipped: means nothing in this state");
        }
        Event::Unsupported(at, op) => {
            line(&mut out, "   ", at, &print_op(vm, op), "skipped: the target cannot do this");
        }
        Event::Judged(step, violation) => judged(&mut out, vm, step, violation),
    });
    match &violation {
        None => out.push_str("\nno oracle objects\n"),
        Some(violation) => {
            if violation.at >= program.ops.len() {
                let _ = writeln!(out, ">>>  end of the program");
            } else if violation.signature.oracle == "panic" {
                line(&mut out, ">>>", violation.at, &print_op(vm, &program.ops[violation.at]), "panicked");
            }
            let _ = writeln!(out, "\n{}\n{}", violation.signature, violation.why);
        }
    }
    (out, violation)
}

fn header(program: &Program, target: &str) -> String {
    let vm = &program.vm;
    let bits: Vec<String> = vm.stolen().bits().iter().map(u8::to_string).collect();
    let bits = if bits.is_empty() { "none".into() } else { bits.join(", ") };
    let mut out = format!(
        "target {target}; stolen bits: {bits}; vCPUs: {}; range-flush back-end: {}",
        vm.vcpus(),
        vm.backend().name(),
    );
    if vm.stride() > 1 {
        let _ = write!(out, "; frames {} pages apart", vm.stride());
    }
    if vm.levels() == Levels::Five {
        out.push_str("; tables of five levels");
    }
    if vm.maxphyaddr() != MAXPHYADDR_MAX {
        let _ = write!(out, "; MAXPHYADDR {}", vm.maxphyaddr());
    }
    if vm.nx_huge_pages() {
        out.push_str("; large pages are not executable");
    }
    if vm.slot_zap_all() {
        out.push_str("; everything goes with a memslot");
    }
    if let Some(entries) = vm.dirty_ring() {
        let _ = write!(out, "; dirty rings of {entries} entries");
    }
    if vm.async_pf() {
        out.push_str("; async page faults");
    }
    if vm.logging() == Logging::Pml {
        out.push_str("; writes logged by PML");
    }
    out.push('\n');
    for comment in &program.comment {
        let _ = writeln!(out, "# {comment}");
    }
    out.push('\n');
    out
}

fn line(out: &mut String, mark: &str, at: usize, op: &str, result: &str) {
    let _ = writeln!(out, "{mark} {:>3}  {op:<48}  {result}", at + 1);
}

fn judged(out: &mut String, vm: &VmConfig, step: &Step<'_>, violation: Option<&Violation>) {
    let mark = if violation.is_some() { ">>>" } else { "   " };
    let admits = step.allowed.admits(vm, &step.exit);
    let got = show_exit(vm, &step.exit);
    let allowed = show_allowed(vm, step.allowed);
    // Where only one answer was right and it was given, saying so twice helps nobody.
    let settled = admits && allowed.len() == 1 && !allowed[0].starts_with("dirty from");
    let result = if settled { got } else { format!("{got}   (allowed: {})", allowed.join(" or ")) };
    line(out, mark, step.at, &print_op(vm, step.op), &result);
    if let Some(of) = step.warning {
        let _ = writeln!(out, "             WARN: {of}");
    }
    for flush in step.flushes {
        let _ = writeln!(out, "             {}", show_flush(vm, flush));
    }
    for alias in 0..step.view.aliases() {
        for frame in step.view.changed(alias).iter() {
            let gpa = print_gpa(vm, vm.gpa(frame, alias));
            let show =
                |spte: Option<gpa_model::Spte>| spte.map_or_else(|| "absent".to_owned(), |spte| spte.to_string());
            let (before, now) = (step.view.before(alias, frame), step.view.now(alias, frame));
            let _ = writeln!(out, "             spte {gpa}: {} -> {}", show(before), show(now));
        }
    }
    if let Some(violation) = violation {
        let _ = writeln!(out, ">>>          {}/{}", violation.signature.oracle, violation.signature.clause);
    }
}

/// An exit in the words of the report.
pub fn show_exit(vm: &VmConfig, exit: &Exit) -> String {
    match exit {
        Exit::Memory(pfn) => pfn.to_string(),
        Exit::Emulated(pfn) => format!("emulated on {pfn}"),
        Exit::Mmio(gpa) => format!("mmio {}", print_gpa(vm, *gpa)),
        Exit::Dirty(frames) => format!("dirty {}", show_frames(vm, *frames)),
        Exit::Young(young) => if *young { "young" } else { "idle" }.into(),
        Exit::GuestFault(fault) => format!("guest-fault {}", fault.name()),
        Exit::Translated(gpa) => format!("translated to {}", print_gpa(vm, *gpa)),
        Exit::PageReady(gpa) => format!("page-ready {}", print_gpa(vm, *gpa)),
        Exit::Done
        | Exit::Retry
        | Exit::Pending
        | Exit::Error
        | Exit::MemoryFault
        | Exit::NotFound
        | Exit::Refused
        | Exit::RingFull
        | Exit::PageNotPresent
        | Exit::Halted
        | Exit::Unsupported => exit.name().into(),
    }
}

fn show_allowed(vm: &VmConfig, allowed: &Allowed) -> Vec<String> {
    let mut parts = Vec::new();
    if allowed.done {
        parts.push("done".to_owned());
    }
    parts.extend(allowed.memory.map(|pfn| pfn.to_string()));
    parts.extend(allowed.emulated.map(|pfn| format!("emulated on {pfn}")));
    parts.extend(allowed.mmio.map(|gfn| format!("mmio {gfn}")));
    if let Some((must, may)) = allowed.dirty {
        parts.push(if must == may {
            format!("dirty {}", show_frames(vm, must))
        } else {
            format!("dirty from {} to {}", show_frames(vm, must), show_frames(vm, may))
        });
    }
    parts.extend(show_walk(vm, allowed));
    parts.extend(allowed.page_ready.map(|gpa| show_exit(vm, &Exit::PageReady(gpa))));
    let words = [
        (allowed.page_not_present, "page-not-present"),
        (allowed.halted, "halted"),
        (allowed.pending, "pending"),
        (allowed.retry, "retry"),
        (allowed.young, "young or idle"),
        (allowed.error, "error"),
        (allowed.not_found, "not-found"),
        (allowed.refused, "refused"),
    ];
    parts.extend(words.iter().filter(|(allowed, _)| *allowed).map(|(_, word)| (*word).to_owned()));
    parts
}

/// Where a walk of the guest's tables may lead.
pub(crate) fn show_walk(vm: &VmConfig, allowed: &Allowed) -> Vec<String> {
    let flux = allowed.table_in_flux.then_some(Fault::NotPresent).filter(|fault| allowed.guest_fault != Some(*fault));
    let faults = [allowed.guest_fault, flux].into_iter().flatten().map(Exit::GuestFault);
    let exits = allowed.translated.map(Exit::Translated).into_iter().chain(faults);
    exits.map(|exit| show_exit(vm, &exit)).collect()
}

fn show_frames(vm: &VmConfig, frames: FrameSet) -> String {
    if frames.is_empty() {
        return "nothing".into();
    }
    let frames: Vec<String> = frames.iter().map(|frame| vm.gfn(frame).to_string()).collect();
    format!("{{{}}}", frames.join(" "))
}

fn show_flush(vm: &VmConfig, flush: &Flush) -> String {
    match flush {
        Flush::All { vcpus } if vcpus.minus(gpa_model::VcpuSet::first(vm.vcpus())) == *vcpus => {
            "flush of nobody".into()
        }
        Flush::All { vcpus } if gpa_model::VcpuSet::first(vm.vcpus()).minus(*vcpus).is_empty() => "flush all".into(),
        Flush::All { vcpus } => {
            let vcpus: Vec<String> = vcpus.iter().map(|vcpu| format!("v{vcpu}")).collect();
            format!("flush all of {}", vcpus.join(" "))
        }
        Flush::Range { gpa, pages, ok } => {
            let outcome = if *ok { "" } else { ": the back-end failed" };
            format!("flush {} pages={pages}{outcome}", print_gpa(vm, *gpa))
        }
    }
}
