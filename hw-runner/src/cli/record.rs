//! `record`: runs programs on `/dev/kvm`, writes traces, judges them.

use super::arguments::alias_method;
use super::files;
use super::judge::judge;
use super::output::line;
use super::status::Status;
use crate::{AliasMethod, Machine, MachineError, Trace, trace};
use gpa_model::{Program, text};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Run programs on /dev/kvm, write what is observed as traces, and judge it
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Programs, as text
    #[arg(required = true, value_name = "FILE")]
    programs: Vec<PathBuf>,
    /// The folder for the traces; each has the name of its program
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// How often to run each program; observations that vary are marked
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    samples: u32,
    /// How aliases are made
    #[arg(long, alias = "realisation", value_name = "NAME", value_parser = alias_method, default_value_t)]
    alias_method: AliasMethod,
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write, err: &mut dyn Write) -> Status {
    let Arguments { programs, output, samples, alias_method } = arguments;
    if let Err(complaint) = check_arguments(programs, output) {
        line(err, complaint);
        return Status::BadInput;
    }
    let mut machine = match Machine::open_with(*alias_method) {
        Ok(machine) => machine,
        Err(error) => {
            line(err, error);
            return Status::Absent;
        }
    };
    let mut status = Status::Clean;
    for path in programs {
        let result = record(&mut machine, path, output, *samples, out);
        status = status.max(result.unwrap_or_else(|(status, complaint)| {
            line(err, complaint);
            status
        }));
    }
    status
}

/// Checks the arguments before any program runs: the folder exists or can be created, and no two traces have
/// the same name.
fn check_arguments(programs: &[PathBuf], output: &Path) -> Result<(), String> {
    std::fs::create_dir_all(output).map_err(|error| {
        format!("{}: expected a folder to write traces to, found: {error}; name another with -o DIR", output.display())
    })?;
    let mut stems = BTreeSet::new();
    for path in programs {
        let stem = path.file_stem().ok_or_else(|| format!("{}: expected the name of a file", path.display()))?;
        if !stems.insert(stem) {
            return Err(format!(
                "{}: expected programs with different names, found two whose trace would be {}.trace",
                path.display(),
                stem.display()
            ));
        }
    }
    Ok(())
}

fn record(
    machine: &mut Machine,
    path: &Path,
    output: &Path,
    samples: u32,
    out: &mut dyn Write,
) -> Result<Status, (Status, String)> {
    let bad = |complaint| (Status::BadInput, complaint);
    let source = files::read(path).map_err(bad)?;
    let program = text::parse(&source).map_err(|error| bad(format!("{}:{error}", path.display())))?;
    let trace = sample(machine, &program, samples)
        .map_err(|error| (Status::of(&error), format!("{}: {error}", path.display())))?;
    let name = format!("{}.trace", path.file_stem().unwrap_or_default().display());
    let write = files::write(output, &name, &trace::print(&trace));
    write.map_err(|error| bad(format!("{}: cannot write: {error}", output.join(&name).display())))?;
    Ok(judge(&path.display().to_string(), trace, out))
}

/// Runs `program` `samples` times, at least once.
fn sample(machine: &mut Machine, program: &Program, samples: u32) -> Result<Trace, MachineError> {
    let mut trace = machine.run(program)?;
    for _ in 1..samples {
        trace.add_sample(&machine.run(program)?);
    }
    Ok(trace)
}
