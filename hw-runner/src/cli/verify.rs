//! `verify`: judges recorded traces.

use super::files;
use super::judge::judge;
use super::output::line;
use super::status::Status;
use crate::trace::{self, Trace};
use gpa_model::text::print_op;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Judge recorded traces by the reference model; needs no /dev/kvm
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Traces, as text
    #[arg(required = true, value_name = "TRACE")]
    traces: Vec<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write, err: &mut dyn Write) -> Status {
    let judged = arguments.traces.iter().map(|path| match load(path) {
        Ok(trace) => judge(&path.display().to_string(), trace, out),
        Err(complaint) => {
            line(err, complaint);
            Status::BadInput
        }
    });
    judged.max().unwrap_or(Status::Clean)
}

fn load(path: &Path) -> Result<Trace, String> {
    let text = files::read(path)?;
    let trace = trace::parse(&text).map_err(|error| format!("{}:{error}", path.display()))?;
    match trace.missing() {
        None => Ok(trace),
        Some(at) => Err(format!(
            "{}: expected an observation (`  => …`) of op {}, `{}`, found none; record the trace again",
            path.display(),
            at + 1,
            print_op(&trace.program.vm, &trace.program.ops[at])
        )),
    }
}
