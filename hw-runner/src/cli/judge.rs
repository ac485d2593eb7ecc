//! Judges a recorded trace, and describes the result.

use super::output::line;
use super::status::Status;
use crate::trace::explain::{self, Difference};
use crate::trace::{Trace, print_observation};
use crate::{Fingerprint, Replay};
use gpa_model::text::print_op;
use gpa_oracles::{Lockstep, Tally, report};
use std::io::Write;

/// Judges one trace, and writes a line about it, or the report of an objection.
pub(super) fn judge(name: &str, trace: Trace, out: &mut dyn Write) -> Status {
    let differences = explain::variants(&trace);
    let program = trace.program.clone();
    let shown = differences.iter().map(|difference| show(&trace, difference));
    let variants: Vec<String> = shown.collect();
    let target = describe(&trace.fingerprint);
    let (mut run, mut replay) = (Lockstep::default(), Replay::default());
    replay.load(trace);
    let (report, violation) = report(&mut run, &mut replay, &program, &target);
    let counts = run.counts();
    let checks: u64 = run.tallies().map(|(_, _, tally)| tally.checked).sum();
    let verdict = match &violation {
        Some(_) => "an oracle objects",
        None if checks == 0 => "vacuous, nothing could be judged",
        None => "clean",
    };
    line(
        out,
        format_args!(
            "{name}: {verdict}: {} ops judged, {} skipped, {} unsupported; {checks} checks{}",
            counts.judged,
            counts.skipped,
            counts.unsupported,
            vacuous(&run)
        ),
    );
    variants.iter().for_each(|variant| line(out, format_args!("{name}: {variant}")));
    if violation.is_some() {
        line(out, report);
    }
    let explained = differences.iter().all(|difference| difference.objection.is_none());
    if violation.is_none() && explained { Status::Clean } else { Status::Findings }
}

/// Describes a variant, and whether the model explains it.
fn show(trace: &Trace, difference: &Difference) -> String {
    let vm = &trace.program.vm;
    let Difference { at, exit, objection } = difference;
    let times = trace.variants.iter().find(|variant| variant.at == *at && variant.exit == *exit);
    let (times, of) = (times.map_or(0, |variant| variant.times), trace.samples);
    let why = objection.as_ref().map_or("explained".into(), |objection| format!("unexplained: {}", objection.why));
    let (op, exit) = (print_op(vm, &trace.program.ops[*at]), print_observation(vm, exit));
    format!("op {}, `{op}`: {exit} in {times} of {of} runs: {why}", at + 1)
}

/// The oracles that had nothing to judge, as happens if guest code does not run natively.
fn vacuous(run: &Lockstep) -> String {
    let mut oracles: Vec<(&str, Tally)> = Vec::new();
    for (oracle, _, tally) in run.tallies() {
        match oracles.last_mut() {
            Some((last, sum)) if *last == oracle => sum.add(tally),
            _ => oracles.push((oracle, tally)),
        }
    }
    let empty = oracles.iter().filter(|(_, sum)| sum.checked == 0 && sum.skipped > 0).map(|(oracle, _)| *oracle);
    let names: Vec<&str> = empty.collect();
    if names.is_empty() { String::new() } else { format!("; vacuous: {}", names.join(", ")) }
}

fn describe(fingerprint: &Fingerprint) -> String {
    let native = if fingerprint.native { "native" } else { "not proven native" };
    format!("{} ({} paging, {native})", fingerprint.module, fingerprint.paging)
}
