//! The report of a program: each op, what the model allows, what the target did, what changed, and where an oracle objects.

use super::lockstep::{Event, Lockstep};
use crate::observe::show::{show_allowed, show_exit, show_flush};
use crate::observe::{Step, Violation};
use gpa_model::text::{print_gpa, print_op};
use gpa_model::{Mmu, Program, VmConfig, VmOption};
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
    for option in VmOption::ALL.iter().filter(|option| !option.is_usual(vm)) {
        let _ = write!(out, "; {}", option.shown(vm));
    }
    out.push('\n');
    for comment in &program.comment {
        let _ = writeln!(out, "# {comment}");
    }
    out.push('\n');
    out
}

/// Mark op number `at` of a `report` as the one at which something was found that no oracle can see.
pub fn mark_op(report: &mut String, at: usize) {
    let [plain, marked] = ["   ", ">>>"].map(|mark| format!("\n{mark} {:>3}  ", at + 1));
    *report = report.replacen(&plain, &marked, 1);
}

fn line(out: &mut String, mark: &str, at: usize, op: &str, result: &str) {
    let _ = writeln!(out, "{mark} {:>3}  {op:<48}  {result}", at + 1);
}

fn judged(out: &mut String, vm: &VmConfig, step: &Step<'_>, violation: Option<&Violation>) {
    let mark = if violation.is_some() { ">>>" } else { "   " };
    let admits = step.admits();
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
