//! `record`: run programs on `/dev/kvm`, write traces, judge them.

use super::run::status_of;
use super::{Status, files, line, verify};
use crate::{AliasMethod, Machine, MachineError, Trace, trace};
use gpa_model::{Program, text};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

pub(super) fn run(
    programs: &[PathBuf],
    output: &Path,
    samples: u32,
    alias_method: AliasMethod,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Status {
    if let Err(complaint) = check_arguments(programs, output) {
        line(err, complaint);
        return Status::BadInput;
    }
    let mut machine = match Machine::open_with(alias_method) {
        Ok(machine) => machine,
        Err(error) => {
            line(err, error);
            return Status::Absent;
        }
    };
    let mut status = Status::Clean;
    for path in programs {
        let result = record(&mut machine, path, output, samples, out);
        status = status.max(result.unwrap_or_else(|(status, complaint)| {
            line(err, complaint);
            status
        }));
    }
    status
}

/// What can be said before any program runs: the folder is there, or can be made, and no trace would overwrite another
/// of this run.
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
        .map_err(|error| (status_of(&error), format!("{}: {error}", path.display())))?;
    let name = format!("{}.trace", path.file_stem().unwrap_or_default().display());
    let write = files::write(output, &name, &trace::print(&trace));
    write.map_err(|error| bad(format!("{}: cannot write: {error}", output.join(&name).display())))?;
    Ok(verify::judge(&path.display().to_string(), trace, out))
}

/// Run `program` so many times, at least once.
fn sample(machine: &mut Machine, program: &Program, samples: u32) -> Result<Trace, MachineError> {
    let mut trace = machine.run(program)?;
    for _ in 1..samples {
        trace.add_sample(&machine.run(program)?);
    }
    Ok(trace)
}
