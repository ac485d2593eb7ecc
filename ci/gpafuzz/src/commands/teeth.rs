//! `gpafuzz teeth`: every mutant is hunted, and the kill matrix says who caught it.

use crate::catalogue::Catalogue;
use crate::cli::{CliError, Exit, TeethArgs, print};
use crate::interrupt;
use crate::target::TargetError;
use crate::targets::MUTANT;
use crate::teeth::{self, Setting};

/// Carry out the command.
///
/// # Errors
/// A [`CliError`] if there is no mutant of a name that was asked for.
pub fn run(args: &TeethArgs) -> Result<Exit, CliError> {
    let catalogue = catalogue(args)?;
    let seeds = (0..args.seeds).map(|n| args.seed.wrapping_add(n)).collect();
    let (runs, seconds) = (args.runs.unwrap_or(catalogue.runs), catalogue.seconds);
    let setting = Setting { runs, seconds, seeds, stop: interrupt::listen()? };
    let teeth = teeth::hunt_all(&catalogue, &setting)?;
    if args.json {
        print(&(serde_json::to_string_pretty(&teeth)? + "\n"));
    } else {
        print(&teeth.table());
    }
    Ok(if teeth.all_killed() { Exit::Clean } else { Exit::Findings })
}

/// The mutants asked for, each once and in the order of the catalogue; all if none was.
fn catalogue(args: &TeethArgs) -> Result<Catalogue, CliError> {
    let catalogue = Catalogue::of(&args.target).ok_or_else(|| TargetError::Unknown {
        name: args.target.clone(),
        known: Catalogue::TARGETS.map(str::to_owned).into(),
    })?;
    let known = catalogue.mutants.iter().map(|mutant| mutant.name).collect();
    let name = |asked: &String| asked.strip_prefix(MUTANT).unwrap_or(asked).to_owned();
    let names: Vec<String> = args.mutant.iter().map(name).collect();
    catalogue.only(&names).map_err(|name| CliError::UnknownMutant { name, known })
}
