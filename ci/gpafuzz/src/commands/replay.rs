//! `gpafuzz replay`: the report of programs, traces and findings.

use crate::cli::{CliError, Exit, ReplayArgs, note, print};
use crate::input;
use gpa_oracles::Lockstep;

/// Carry out the command.
///
/// # Errors
/// A [`CliError`] at the first file or target that cannot be used.
pub fn run(args: &ReplayArgs) -> Result<Exit, CliError> {
    let mut exit = Exit::Clean;
    for file in &args.file {
        let input = input::read(file)?;
        let (name, mut opened) = input.open_target(args.target.as_deref())?;
        if let Some(about) = opened.note {
            note(&format!("{name}: {about}"));
        }
        let (report, violation) = opened.target.report(&mut Lockstep::default(), &input.program, &name)?;
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
        if violation.is_some() {
            exit = Exit::Findings;
        }
    }
    Ok(exit)
}
