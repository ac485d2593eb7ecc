//! The gate: every check this project must pass, as one table of stages, run with `cargo xtask test`.
//!
//! ```text
//! cargo xtask test                  setup, then every stage; every stage is reported
//!     --no-setup                    install nothing
//!     --no-skips                    a stage that is skipped fails the gate
//!     --only NAME…                  some stages, without setup
//! cargo xtask setup                 install what the stages need, and say what for; --all also what only some targets
//!                                   need, --list only says
//! cargo xtask mutants               change the source of kvm-mmu in many small ways, and see which a fixed campaign
//!     --sample N --seed S           notices; some of them
//! cargo xtask list                  name the stages, and the rules of the stage `rules`
//! ```
//!
//! Exit status: 0 if nothing failed, 1 if a stage failed, 2 for a command line that means nothing.
//!
//! What is absent on purpose: retries; stages that pass because something is missing, which are skipped and say so; stages that
//! install anything; many dependencies, so that the gate is built before anything else.

mod fuzz;
mod gate;
mod mutants;
mod rules;
mod setup;
mod snapshots;
mod stages;
mod tokens;
mod tree;
mod worker;

use gate::Gate;
use setup::Mode;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask test [--no-setup] [--no-skips] [--only NAME…] | cargo xtask setup [--all | --list] | \
                     cargo xtask mutants [--sample N] [--seed S] | cargo xtask list";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match *words {
        ["test", ref options @ ..] => test(options),
        ["setup"] => setup::run(Mode::Gate),
        ["setup", "--all"] => setup::run(Mode::All),
        ["setup", "--list"] => setup::run(Mode::List),
        ["mutants", ref options @ ..] => mutants(options),
        ["list"] => {
            for stage in &stages::STAGES {
                println!("{:<12} {}", stage.name, stage.what);
            }
            println!("\n{}", rules::list());
            ExitCode::SUCCESS
        }
        _ => usage(&format!("expected a command, found `{}`", args.join(" "))),
    }
}

fn test(options: &[&str]) -> ExitCode {
    let end = options.iter().position(|option| *option == "--only").unwrap_or(options.len());
    let (options, only) = (&options[..end], options.get(end + 1..).unwrap_or_default());
    if let Some(unknown) = options.iter().find(|option| !["--no-setup", "--no-skips"].contains(option)) {
        return usage(&format!("no option is called `{unknown}`"));
    }
    if let Some(unknown) = only.iter().find(|name| stages::STAGES.iter().all(|stage| stage.name != **name)) {
        let known: Vec<&str> = stages::STAGES.iter().map(|stage| stage.name).collect();
        return usage(&format!("no stage is called `{unknown}`; there are {}", known.join(", ")));
    }
    if only.is_empty() && !options.contains(&"--no-setup") {
        // What cannot be installed costs a stage, which says so.
        let _ = setup::run(Mode::Gate);
    }
    match Gate::new() {
        Ok(gate) => gate.run(&stages::STAGES, only, options.contains(&"--no-skips")),
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn mutants(options: &[&str]) -> ExitCode {
    let (mut sample, mut seed) = (None, 1);
    for pair in options.chunks(2) {
        match (pair, pair.last().and_then(|value| value.parse().ok())) {
            (["--sample", _], Some(number)) => sample = Some(number as usize),
            (["--seed", _], Some(number)) => seed = number,
            _ => return usage(&format!("expected --sample NUMBER or --seed NUMBER, found `{}`", pair.join(" "))),
        }
    }
    match mutants::run(sample, seed) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage(problem: &str) -> ExitCode {
    eprintln!("xtask: {problem}\n{USAGE}");
    ExitCode::from(2)
}
