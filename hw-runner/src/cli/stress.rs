//! `stress`: vCPUs that run at once, under a host that gives them no rest.

use super::{Status, line};
use crate::{AliasMethod, Machine, MachineError, StressReport};
use std::io::Write;
use std::time::Duration;

pub(super) fn run(
    duration: Duration,
    vcpus: usize,
    alias_methods: &[AliasMethod],
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Status {
    let asked = if alias_methods.is_empty() { &AliasMethod::ALL[..] } else { alias_methods };
    let mut status = None;
    for &alias_method in asked {
        let stressed = Machine::open_with(alias_method).and_then(|mut machine| one(&mut machine, duration, vcpus, out));
        match stressed {
            Ok(found) => status = status.max(Some(found)),
            Err(error) => {
                line(err, format_args!("aliases by {alias_method}: {error}"));
                // Of those that nobody asked for by name, one that is not here is only left out.
                if !error.is_absence() || !alias_methods.is_empty() {
                    status = status.max(Some(if error.is_finding() { Status::Findings } else { Status::Absent }));
                }
            }
        }
    }
    status.unwrap_or(Status::Absent)
}

/// Stress `machine`, and say what came of it.
pub(crate) fn one(
    machine: &mut Machine,
    duration: Duration,
    vcpus: usize,
    out: &mut dyn Write,
) -> Result<Status, MachineError> {
    let alias_method = machine.fingerprint().alias_method;
    let before = machine.witness();
    let report = machine.stress(vcpus, duration)?;
    let after = machine.witness();
    let StressReport { accesses, exits, repeated, harvested, findings, .. } = report;
    let native = if after.is_native_since(&before) { "native" } else { "not proven native: nothing was judged" };
    let rate = accesses as f64 / duration.as_secs_f64();
    line(out, format_args!("aliases by {alias_method}: {vcpus} vCPUs, {native}, {rate:.0} accesses/s"));
    let laps: Vec<String> = report.laps.iter().map(u64::to_string).collect();
    line(out, format_args!("  laps {}; {exits} exits for holes, {repeated} entries repeated", laps.join(" and ")));
    let rounds: Vec<String> = report.rounds.iter().map(|(name, count)| format!("{name} {count}")).collect();
    line(out, format_args!("  rounds: {}", rounds.join(", ")));
    line(out, format_args!("  {harvested} frames certainly written after their log was cleared"));
    line(out, format_args!("  {}", after.show_since(&before)));
    line(out, format_args!("  {findings} findings"));
    report.shown.iter().for_each(|finding| line(out, format_args!("    {finding}")));
    Ok(if findings > 0 { Status::Findings } else { Status::Clean })
}
