//! The kill matrix: every mutant dies, by the oracle meant for it; and the corrected design lives.

use gpa_model::Program;
use gpa_model::choices::FromRng;
use gpa_model::generate::Generator;
use gpa_model::minimize::minimize;
use gpa_oracles::{Lockstep, Violation};
use kvm_mmu::mutants::{self, Mutant};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use std::fmt::Write;

/// Programs tried until the oracle meant for a mutant must have caught it.
const PROGRAMS: usize = 100_000;
/// Programs tried to see which other oracles notice too.
const PROGRAMS_OF_OTHERS: usize = 2_000;

#[test]
fn every_mutant_dies_by_the_oracle_meant_for_it() {
    let mut matrix = Matrix::default();
    mutants::ALL.iter().for_each(|mutant| matrix.hunt(mutant));
    assert!(matrix.survivors.is_empty(), "{}\nsurvived: {:?}", matrix.table, matrix.survivors);
    let earns = matrix.what_each_oracle_earns();
    insta::assert_snapshot!("kill_matrix", format!("{}\n{earns}", matrix.table));
}

#[derive(Default)]
struct Matrix {
    table: String,
    survivors: Vec<&'static str>,
    /// The mutants that no oracle but the one meant for them notices, and that one.
    only_by: Vec<(&'static str, &'static str)>,
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
        if others.is_empty() {
            self.only_by.push((oracle, mutant.name));
        }
        let others = if others.is_empty() { String::new() } else { format!("  also {}", others.join(", ")) };
        let (name, law) = (mutant.name, format!("{oracle}/{clause}"));
        let _ = writeln!(self.table, "{name:<30} {law:<28} program {executions:>4}, {ops} ops{others}");
    }

    /// Why each oracle is kept: what only it catches.
    fn what_each_oracle_earns(&self) -> String {
        let mut earns = format!("only this oracle notices, of all within {PROGRAMS_OF_OTHERS} programs:\n");
        for oracle in gpa_oracles::all() {
            let oracle = oracle.name();
            let mutants: Vec<&str> =
                self.only_by.iter().filter(|(by, _)| *by == oracle).map(|(_, mutant)| *mutant).collect();
            assert!(!mutants.is_empty(), "every mutant that {oracle} catches is caught by others too: why is it kept?");
            let _ = writeln!(earns, "{oracle:<13} {:>2}: {}", mutants.len(), mutants.join(", "));
        }
        earns
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
    let generator = Generator::new(mutant.profile());
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
