//! `run`: runs programs and traces on `/dev/kvm`, judges them, and reports how reliably a finding shows.

use super::arguments::alias_method;
use super::files;
use super::judge::judge;
use super::output::line;
use super::status::Status;
use crate::trace::explain::{Difference, differences};
use crate::trace::{Trace, print_observation};
use crate::{AliasMethod, Machine, MachineError, Replay};
use gpa_model::Program;
use gpa_model::text::print_op;
use gpa_oracles::Lockstep;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A finding counts as stable only after this many runs.
const CONFIRMED: u32 = 10;

/// Run programs on /dev/kvm and judge them; report differences from a recorded trace, and how reliably a
/// finding shows
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Programs or traces, as text
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How often to run each file; one that an oracle objects to runs at least 10 times
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    times: u32,
    /// How aliases are made [default: as in the trace; slots for a program]
    #[arg(long, alias = "realisation", value_name = "NAME", value_parser = alias_method)]
    alias_method: Option<AliasMethod>,
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write, err: &mut dyn Write) -> Status {
    let mut machine = None;
    let mut status = Status::Clean;
    for path in &arguments.files {
        let result = one(&mut machine, path, arguments.times, arguments.alias_method, out);
        status = status.max(result.unwrap_or_else(|(status, complaint)| {
            line(err, complaint);
            status
        }));
    }
    status
}

type Failure = (Status, String);

fn one(
    machine: &mut Option<Machine>,
    path: &Path,
    times: u32,
    alias_method: Option<AliasMethod>,
    out: &mut dyn Write,
) -> Result<Status, Failure> {
    let (program, recorded) = files::program(path).map_err(|complaint| (Status::BadInput, complaint))?;
    let alias_method =
        alias_method.or(recorded.as_ref().map(|trace| trace.fingerprint.alias_method)).unwrap_or_default();
    let fail = |error: MachineError| (Status::of(&error), format!("{}: {error}", path.display()));
    if machine.as_ref().is_none_or(|machine| machine.fingerprint().alias_method != alias_method) {
        *machine = Some(Machine::open_with(alias_method).map_err(fail)?);
    }
    let Some(machine) = machine else { return Ok(Status::Absent) };
    let runs = repeat(machine, &program, times).map_err(fail)?;
    let (name, objected, count) = (path.display().to_string(), runs.objected, runs.count);
    // Of several runs, the first with an objection.
    let shown = runs.objection.unwrap_or(runs.first);
    let mut status = judge(&name, shown.clone(), out);
    if objected > 0 {
        let verdict = if count < CONFIRMED || objected < count { "not stable" } else { "stable" };
        line(out, format_args!("{name}: an oracle objects in {objected} of {count} runs: {verdict}"));
    }
    if let Some(recorded) = recorded {
        for difference in differences(&recorded, &shown) {
            status = status.max(tell(&name, &recorded, &difference, out));
        }
    }
    Ok(status)
}

/// Describes where a new run differs from `trace`, and whether the model explains that.
fn tell(name: &str, trace: &Trace, difference: &Difference, out: &mut dyn Write) -> Status {
    let Difference { at, exit, objection } = difference;
    let vm = &trace.program.vm;
    let show = |exit| print_observation(vm, &exit);
    let (op, was) = (print_op(vm, &trace.program.ops[*at]), trace.observation(*at).map_or("nothing".into(), show));
    let why = objection.as_ref().map_or("explained".into(), |objection| format!("unexplained: {}", objection.why));
    line(out, format_args!("{name}: op {}, `{op}`: recorded {was}, found {}: {why}", at + 1, show(*exit)));
    if objection.is_some() { Status::Findings } else { Status::Clean }
}

struct Runs {
    first: Trace,
    /// The first run to which an oracle objects.
    objection: Option<Trace>,
    objected: u32,
    count: u32,
}

/// Runs `program` `times` times, and more often if an oracle objects.
fn repeat(machine: &mut Machine, program: &Program, times: u32) -> Result<Runs, MachineError> {
    let (mut lockstep, mut replay) = (Lockstep::default(), Replay::default());
    let mut runs = Runs { first: machine.run(program)?, objection: None, objected: 0, count: 0 };
    let mut trace = runs.first.clone();
    loop {
        replay.load(trace);
        let objects = lockstep.run(&mut replay, program).is_some();
        trace = replay.unload();
        runs.count += 1;
        runs.objected += u32::from(objects);
        if objects && runs.objection.is_none() {
            runs.objection = Some(trace.clone());
        }
        if runs.count >= if runs.objected > 0 { times.max(CONFIRMED) } else { times } {
            return Ok(runs);
        }
        machine.run_into(program, &mut trace)?;
    }
}
