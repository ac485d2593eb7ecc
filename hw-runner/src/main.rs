//! The binary `hw-runner`: see [`hw_runner::cli`].

use clap::Parser;
use hw_runner::cli::{Args, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(run(&Args::parse(), &mut std::io::stdout(), &mut std::io::stderr()) as u8)
}
