//! Writes `corpus/regressions/`: for each mutant the smallest program by which the oracle meant for it catches it.
//!
//! Run it after adding a mutant: `cargo run --release -p kvm-mmu --example write_regressions`. Files that exist are left
//! alone, so that a regression once committed stays what it was.

use gpa_model::choices::FromRng;
use gpa_model::generate::Generator;
use gpa_model::minimize::minimize;
use gpa_model::{Program, text};
use gpa_oracles::Lockstep;
use kvm_mmu::mutants::{self, Mutant};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use std::path::Path;

const PROGRAMS: usize = 100_000;

fn write(mutant: &Mutant) {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/regressions").join(format!("{}.prog", mutant.name));
    if path.exists() {
        return;
    }
    let Some(mut program) = smallest(mutant) else {
        eprintln!("{} survives {PROGRAMS} programs", mutant.name);
        return;
    };
    let (oracle, clause) = mutant.caught_by;
    program.comment = vec![format!("{}.", mutant.breaks), format!("bad on mutant:{}: {oracle}/{clause}", mutant.name)];
    match std::fs::write(&path, text::print(&program)) {
        Ok(()) => println!("{}: {} ops", mutant.name, program.ops.len()),
        Err(error) => eprintln!("{}: {error}", path.display()),
    }
}

fn smallest(mutant: &Mutant) -> Option<Program> {
    let mut choices = FromRng(Xoshiro256PlusPlus::seed_from_u64(1));
    let generator = Generator::new(mutant.profile());
    let (mut run, mut mmu) = (Lockstep::default(), mutant.mmu());
    let mut caught = |program: &Program| {
        let violation = run.run(&mut mmu, program);
        violation.is_some_and(|violation| (violation.signature.oracle, violation.signature.clause) == mutant.caught_by)
    };
    let mut program = Program::default();
    for _ in 0..PROGRAMS {
        generator.program(&mut choices, &mut program);
        if caught(&program) {
            return Some(minimize(&program, caught).program);
        }
    }
    None
}

fn main() {
    mutants::ALL.iter().for_each(write);
}
