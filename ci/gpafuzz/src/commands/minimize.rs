//! `gpafuzz minimize`: a smaller program that breaks the same law in the same way.

use super::open::target_for;
use super::{CliError, EXIT_CODES, Exit, KernelArgs};
use crate::campaign::finding::Confirmed;
use crate::campaign::input;
use crate::campaign::shrink;
use crate::engine::Found;
use crate::target::RunRecord;
use crate::terminal::{note, print};
use clap::Args;
use gpa_model::text;
use gpa_oracles::Lockstep;
use std::path::PathBuf;

/// Shrink a program that an oracle objects to, and keep its signature.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct MinimizeArgs {
    /// A program, or the folder of a finding
    pub file: PathBuf,
    /// The target [default: that of the finding, or else kvm-mmu]
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// Another kernel, for targets of the lab
    #[command(flatten)]
    pub kernel: KernelArgs,
    /// Where to write the program [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Carry out the command.
///
/// # Errors
/// A [`CliError`] if the file or the target cannot be used, or no oracle objects to begin with.
pub fn run(args: &MinimizeArgs) -> Result<Exit, CliError> {
    let input = input::read(&args.file)?;
    let (name, mut opened) = target_for(&input, args.target.as_deref(), &args.kernel)?;
    let target = opened.target.as_mut();
    let mut run = Lockstep::default();
    let Some(violation) = target.judge(&mut run, &input.program)? else {
        return Err(CliError::NothingToMinimize(input.path, name));
    };
    // The user asked for it, so restarting a target that does not survive the program is worth the wait.
    let seen = RunRecord { survived: true, ..RunRecord::of(target) };
    let found = Found { program: input.program, violation, execution: 1, seen };
    let smaller = shrink(target, &mut run, &found)?;
    let printed = text::print(&smaller.program);
    match &args.output {
        Some(path) => std::fs::write(path, printed).map_err(|error| CliError::Output(path.clone(), error))?,
        None => print(&printed),
    }
    let (before, after) = (found.program.ops.len(), smaller.program.ops.len());
    let flaky = Confirmed::words(smaller.confirmed, smaller.reproduces);
    note(&format!(
        "{}: {before} ops before, {after} after, {} executions{flaky}",
        found.violation.signature, smaller.executions
    ));
    Ok(Exit::Clean)
}
