//! `gpafuzz teeth`: every mutant is hunted, and the kill matrix says who caught it.

use crate::cli::{CliError, Exit, TeethArgs, print};
use crate::interrupt;
use crate::targets::{self, MUTANT, Opened};
use crate::teeth::{self, Setting};
use kvm_mmu::mutants::{self, Mutant};

/// Carry out the command.
///
/// # Errors
/// A [`CliError`] if there is no mutant of a name that was asked for.
pub fn run(args: &TeethArgs) -> Result<Exit, CliError> {
    let mutants = open(&args.mutant)?;
    let seeds = (0..args.seeds).map(|n| args.seed.wrapping_add(n)).collect();
    let setting = Setting { runs: args.runs, seeds, stop: interrupt::listen()? };
    let teeth = teeth::hunt_all(mutants, &setting)?;
    if args.json {
        print(&(serde_json::to_string_pretty(&teeth)? + "\n"));
    } else {
        print(&teeth.table());
    }
    Ok(if teeth.all_killed() { Exit::Clean } else { Exit::Findings })
}

/// The mutants asked for, each once and in the order of the catalogue; all if none was.
fn open(asked: &[String]) -> Result<Vec<(&'static Mutant, Opened)>, CliError> {
    let name = |asked: &String| asked.strip_prefix(MUTANT).unwrap_or(asked).to_owned();
    let names: Vec<String> = asked.iter().map(name).collect();
    if let Some(unknown) = names.iter().find(|name| mutants::ALL.iter().all(|mutant| mutant.name != **name)) {
        return Err(CliError::UnknownMutant(unknown.clone()));
    }
    let wanted = mutants::ALL.iter().filter(|mutant| names.is_empty() || names.iter().any(|name| name == mutant.name));
    wanted.map(|mutant| Ok((mutant, targets::open(&format!("{MUTANT}{}", mutant.name))?))).collect()
}
