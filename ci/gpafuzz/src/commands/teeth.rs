//! `gpafuzz teeth`: every mutant is hunted, and the kill matrix says which oracle caught it.

use super::{CliError, Exit};
use crate::target::TargetError;
use crate::target::registry::{self, MUTANT};
use crate::teeth::catalogue::Catalogue;
use crate::teeth::{self, Setting};
use crate::terminal::interrupt;
use crate::terminal::print;
use clap::Args;

/// Hunt every mutant of a target: which oracle catches it, how soon, and with how small a program.
///
/// A mutant has one wrong decision. The same mutants, seeds and runs give the same answer, byte for byte. Mutants of the real
/// kernel are the exception, because its interrupts change the coverage that guides the hunt.
#[derive(Debug, Args)]
#[command(after_help = TEETH_EXIT_CODES)]
pub struct TeethArgs {
    /// `kvm-mmu`, or `linux-kvm-stolen-fixed`, whose mutants are built and booted
    #[arg(long, value_name = "NAME", default_value = registry::DEFAULT)]
    pub target: String,
    /// A mutant (see `gpafuzz targets`); may be given several times [default: all]
    #[arg(long, value_name = "NAME")]
    pub mutant: Vec<String>,
    /// The most programs for each mutant and seed [default: 100000, or 20000 in the lab]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub runs: Option<u64>,
    /// Seed of all random choices
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Hunt from this many seeds, --seed, --seed + 1, …, and print how the executions spread
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub seeds: u64,
    /// Print JSON instead of a table: `gpafuzz::teeth::Teeth`
    #[arg(long)]
    pub json: bool,
}

/// What the exit status of `teeth` means.
const TEETH_EXIT_CODES: &str = "\
Exit status:
  0  the oracle and clause meant for each mutant kill it, from every seed
  1  a mutant survives, only another oracle objects, or Ctrl-C ended the hunt
  2  usage, or no such mutant
  3  this machine lacks what the target needs";

/// Carry out the command.
///
/// # Errors
/// A [`CliError`] if there is no mutant of a name that was asked for.
pub fn run(args: &TeethArgs) -> Result<Exit, CliError> {
    let catalogue = catalogue(args)?;
    let seeds = (0..args.seeds).map(|n| args.seed.wrapping_add(n)).collect();
    let (runs, seconds) = (args.runs.unwrap_or(catalogue.runs), catalogue.seconds);
    let setting = Setting { runs, seconds, seeds, stop: interrupt::listen().map_err(CliError::Signal)? };
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
