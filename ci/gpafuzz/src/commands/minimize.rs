//! `gpafuzz minimize`: a smaller program that breaks the same law in the same way.

use crate::campaign::shrink;
use crate::cli::{CliError, Exit, MinimizeArgs, note, print};
use crate::engine::Found;
use crate::finding::Confirmed;
use crate::input;
use crate::target::RunRecord;
use gpa_model::text;
use gpa_oracles::Lockstep;

/// Carry out the command.
///
/// # Errors
/// A [`CliError`] if the file or the target cannot be used, or no oracle objects to begin with.
pub fn run(args: &MinimizeArgs) -> Result<Exit, CliError> {
    let input = input::read(&args.file)?;
    let (name, mut opened) = input.open_target(args.target.as_deref(), &args.kernel)?;
    let target = opened.target.as_mut();
    let mut run = Lockstep::default();
    let Some(violation) = target.judge(&mut run, &input.program)? else {
        return Err(CliError::NothingToMinimize(input.path, name));
    };
    // Whoever asks for it may wait for what does not survive the program to be started again.
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
