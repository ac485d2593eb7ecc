//! The kill matrix: every mutant dies, by the oracle meant for it; and the corrected design lives.

use gpa_model::Program;
use gpa_model::choices::FromRng;
use gpa_model::generate::{Generator, Profile};
use gpa_model::minimize::minimize;
use gpa_oracles::{Lockstep, Violation};
use kvm_mmu::mutants::{self, Mutant};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use std::fmt::Write;

/// Programs tried until the oracle meant for a mutant must have caught it.
const PROGRAMS: usize = 20_000;
/// Programs tried to see which other oracles notice too.
const PROGRAMS_OF_OTHERS: usize = 2_000;

#[test]
fn every_mutant_dies_by_the_oracle_meant_for_it() {
    let mut matrix = Matrix::default();
    mutants::ALL.iter().for_each(|mutant| matrix.hunt(mutant));
    assert!(matrix.survivors.is_empty(), "{}\nsurvived: {:?}", matrix.table, matrix.survivors);
    insta::assert_snapshot!("kill_matrix", matrix.table);
}

#[derive(Default)]
struct Matrix {
    table: String,
    survivors: Vec<&'static str>,
}

impl Matrix {
    fn hunt(&mut self, mutant: &Mutant) {
        let (oracle, clause) = mutant.caught_by;
        // The named oracle alone, so that no other can take the kill from it.
        let caught = hunt(mutant, oracle, PROGRAMS, |violation| violation.signature.clause == clause);
        let Some((program, executions)) = caught else {
            self.survivors.push(mutant.name);
            return;
        };
        let ops = smallest(mutant, oracle, clause, &program);
        let others: Vec<&str> = gpa_oracles::all()
            .iter()
            .map(|other| other.name())
            .filter(|&other| other != oracle && hunt(mutant, other, PROGRAMS_OF_OTHERS, |_| true).is_some())
            .collect();
        let others = if others.is_empty() { String::new() } else { format!("  also {}", others.join(", ")) };
        let (name, law) = (mutant.name, format!("{oracle}/{clause}"));
        let _ = writeln!(self.table, "{name:<30} {law:<28} program {executions:>4}, {ops} ops{others}");
    }
}

/// The first program at which `oracle` objects in the way that is `wanted`, and its number.
fn hunt(
    mutant: &Mutant,
    oracle: &str,
    programs: usize,
    wanted: impl Fn(&Violation) -> bool,
) -> Option<(Program, usize)> {
    let mut choices = FromRng(Xoshiro256PlusPlus::seed_from_u64(1));
    let generator = Generator::new(Profile::default());
    let (mut run, mut mmu) = (Lockstep::new(gpa_oracles::only(oracle)), mutant.mmu());
    let mut program = Program::default();
    for n in 1..=programs {
        generator.program(&mut choices, &mut program);
        if run.run(&mut mmu, &program).is_some_and(|violation| wanted(&violation)) {
            return Some((program, n));
        }
    }
    None
}

fn smallest(mutant: &Mutant, oracle: &str, clause: &str, program: &Program) -> usize {
    let (mut run, mut mmu) = (Lockstep::new(gpa_oracles::only(oracle)), mutant.mmu());
    let same = |candidate: &Program| {
        run.run(&mut mmu, candidate).is_some_and(|violation| violation.signature.clause == clause)
    };
    minimize(program, same).program.ops.len()
}
