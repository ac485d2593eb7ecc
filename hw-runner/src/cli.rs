//! The command line: `probe` this host, `record` programs on it, `verify` recorded traces anywhere.

mod arguments;
mod export;
mod files;
mod judge;
mod output;
mod probe;
mod record;
mod run;
mod serve;
mod status;
mod stress;
mod verify;

pub use status::Status;

use clap::{Parser, Subcommand};
use output::{Output, line};
use std::io::Write;

/// Run programs of GPA aliasing on the real /dev/kvm, and judge what was recorded.
///
/// Exit status: 0 clean, 1 an oracle objects, 2 bad usage or input, or no output, 3 no usable /dev/kvm.
#[derive(Debug, Parser)]
#[command(name = "hw-runner", version)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Probe(probe::Arguments),
    Run(run::Arguments),
    Record(record::Arguments),
    Export(export::Arguments),
    Stress(stress::Arguments),
    Verify(verify::Arguments),
    Serve(serve::Arguments),
}

/// Runs the command of `args`. Results go to `out`, complaints to `err`.
///
/// A command whose results could not be written has [`Status::BadInput`].
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Status {
    let (mut out, mut err) = (Output::new(out), Output::new(err));
    let status = run_command(&args.command, &mut out, &mut err);
    match out.finish() {
        Ok(()) => status,
        Err(error) => {
            line(&mut err, format_args!("expected to write the results to standard output, found: {error}"));
            Status::BadInput
        }
    }
}

fn run_command(command: &Command, out: &mut dyn Write, err: &mut dyn Write) -> Status {
    match command {
        Command::Probe(_) => probe::run(out, err),
        Command::Run(arguments) => run::run(arguments, out, err),
        Command::Record(arguments) => record::run(arguments, out, err),
        Command::Export(arguments) => export::run(arguments, out, err),
        Command::Stress(arguments) => stress::run(arguments, out, err),
        Command::Verify(arguments) => verify::run(arguments, out, err),
        Command::Serve(arguments) => serve::run(arguments, err),
    }
}
