//! The command line: the list of commands, and how the answer of one becomes an exit status.

use crate::commands::{
    self, EXIT_CODES, Exit, bench::BenchArgs, coverage::CoverageArgs, exhaust::ExhaustArgs, fuzz::FuzzArgs,
    minimize::MinimizeArgs, replay::ReplayArgs, teeth::TeethArgs, walk::WalkArgs,
};
use crate::terminal::note;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Fuzz, replay and minimise programs that alias guest physical addresses.
///
/// Without a command: `fuzz`, for 30 seconds, on every target.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Fuzz(FuzzArgs),
    Exhaust(ExhaustArgs),
    Replay(ReplayArgs),
    Minimize(MinimizeArgs),
    /// List the targets, and which laws each can be held to.
    Targets,
    Teeth(TeethArgs),
    Coverage(CoverageArgs),
    Bench(BenchArgs),
    Walk(WalkArgs),
}

/// Whether a command line, the name of the program included, is one that can be carried out.
///
/// # Errors
/// What is wrong with it.
pub fn check<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<(), clap::Error> {
    Cli::try_parse_from(words).map(|_| ())
}

/// Do what the command line asks for.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command.unwrap_or_else(|| Command::Fuzz(FuzzArgs::default())) {
        Command::Fuzz(args) => commands::fuzz::run(&args),
        Command::Exhaust(args) => commands::exhaust::run(&args),
        Command::Replay(args) => commands::replay::run(&args),
        Command::Minimize(args) => commands::minimize::run(&args),
        Command::Targets => commands::targets::run(),
        Command::Teeth(args) => commands::teeth::run(&args),
        Command::Coverage(args) => commands::coverage::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Walk(args) => commands::walk::run(&args),
    };
    match done {
        Ok(Exit::Clean) => ExitCode::SUCCESS,
        Ok(Exit::Findings) => ExitCode::from(1),
        Ok(Exit::Interrupted(status)) => ExitCode::from(status),
        Err(error) => {
            note(&format!("gpafuzz: {error}"));
            ExitCode::from(error.status())
        }
    }
}
