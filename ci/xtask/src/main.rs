//! The gate: every check this project must pass, as one table of stages, run with `cargo xtask test`.
//!
//! ```text
//! cargo xtask test               run every stage, report every stage
//! cargo xtask test --only NAME…  run some
//! cargo xtask mutants            change the source of kvm-mmu in many small ways, and see which a fixed campaign notices;
//!                                `--sample N --seed S` for some of them
//! cargo xtask lab                say what the lab needs of this machine
//! cargo xtask list               name the stages, and the rules of the stage `rules`
//! ```
//!
//! Exit status: 0 if nothing failed, 1 if a stage failed, 2 for a command line that means nothing.
//!
//! What is absent on purpose: retries, stages that pass because something is missing, and any dependency but the standard
//! library, so that the gate itself builds in seconds and before anything else does.

mod fuzz;
mod gate;
mod hardware;
mod lab;
mod mutants;
mod readme;
mod rules;
mod snapshots;
mod stages;
mod threads;
mod tokens;
mod tree;

use gate::Gate;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask test [--only NAME…] | cargo xtask mutants [--sample N] [--seed S] | cargo xtask lab | cargo xtask list";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match *words {
        ["test"] => test(&[]),
        ["test", "--only", ref names @ ..] if !names.is_empty() => test(names),
        ["mutants", ref options @ ..] => mutants(options),
        ["lab"] => lab::needs(),
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

fn test(only: &[&str]) -> ExitCode {
    if let Some(unknown) = only.iter().find(|name| stages::STAGES.iter().all(|stage| stage.name != **name)) {
        let known: Vec<&str> = stages::STAGES.iter().map(|stage| stage.name).collect();
        return usage(&format!("no stage is called `{unknown}`; there are {}", known.join(", ")));
    }
    match Gate::new() {
        Ok(gate) => gate.run(&stages::STAGES, only),
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
