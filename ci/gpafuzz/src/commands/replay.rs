//! `gpafuzz replay`: the report of programs, traces and findings.

use super::open::target_for;
use super::{CliError, EXIT_CODES, Exit, KernelArgs};
use crate::campaign::input;
use crate::target::Opened;
use crate::terminal::{note, print};
use clap::Args;
use gpa_oracles::Lockstep;
use std::fs;
use std::path::{Path, PathBuf};

/// Run programs once and report each op: what the model allows, what the target did, and where an oracle objects.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct ReplayArgs {
    /// A program, a recorded trace, or the folder of a finding
    #[arg(required = true)]
    pub file: Vec<PathBuf>,
    /// The target [default: that of the finding, the trace itself, or else kvm-mmu]
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// Another kernel, for targets of the lab
    #[command(flatten)]
    pub kernel: KernelArgs,
    /// Print the log of the lab's kernel since it booted
    #[arg(long)]
    pub kernel_log: bool,
    /// Write the answers of a real KVM to this folder, as one trace for each program
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
}

/// Carry out the command.
///
/// # Errors
/// A [`CliError`] at the first file or target that cannot be used.
pub fn run(args: &ReplayArgs) -> Result<Exit, CliError> {
    let mut exit = Exit::Clean;
    let mut last: Option<(String, Opened)> = None;
    for file in &args.file {
        let input = input::read(file)?;
        // A target that takes seconds to come up serves all files that are for it.
        let again = args.target.is_some() && last.is_some();
        let (name, opened) = match last.take().filter(|_| again) {
            Some(same) => last.insert(same),
            None => last.insert(target_for(&input, args.target.as_deref(), &args.kernel)?),
        };
        if let Some(about) = opened.note.take() {
            note(&format!("{name}: {about}"));
        }
        let (report, violation) = opened.target.report(&mut Lockstep::default(), &input.program, name)?;
        if args.file.len() > 1 {
            print(&format!("== {}\n", input.path.display()));
        }
        print(&report);
        if args.kernel_log {
            match opened.target.log() {
                Some(log) => print(&format!("the kernel's log:\n{log}")),
                None => note(&format!("{name}: no kernel of its own, and so no log of it")),
            }
        }
        if let Some(folder) = &args.record {
            match opened.target.trace() {
                Ok(trace) => write(folder, &input.path, &trace)?,
                Err(why) => note(&format!("{name}: {why}: {}", input.path.display())),
            }
        }
        if violation.is_some() {
            exit = Exit::Findings;
        }
    }
    Ok(exit)
}

/// A reader sees the old trace or the new one, never a part.
fn write(folder: &Path, program: &Path, trace: &str) -> Result<(), CliError> {
    let path = folder.join(program.with_extension("trace").file_name().unwrap_or_default());
    let part = path.with_extension("trace.part");
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(&part, trace));
    written.and_then(|()| fs::rename(&part, &path)).map_err(|error| CliError::Output(path, error))
}
