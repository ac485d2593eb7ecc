//! The corrected design breaks no law, on programs drawn at random.

use gpa_model::choices::FromRng;
use gpa_model::generate::{Generator, Profile};
use gpa_model::{Mmu, Program, Vm, text};
use gpa_oracles::Lockstep;
use kvm_mmu::{Corrected, KvmMmu};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

#[test]
fn corrected_design_breaks_no_law() {
    let mut choices = FromRng(Xoshiro256PlusPlus::seed_from_u64(1));
    let generator = Generator::new(Profile::default());
    let mut run = Lockstep::default();
    let mut mmu = KvmMmu::<Corrected>::new(&Vm::default());
    let mut program = Program::default();
    for n in 0..50_000 {
        generator.program(&mut choices, &mut program);
        if let Some(violation) = run.run(&mut mmu, &program) {
            let (report, _) = gpa_oracles::report(&mut run, &mut mmu, &program, "kvm-mmu");
            panic!("program {n}: {violation}\n{}\n{report}", text::print(&program));
        }
    }
    for (oracle, clause, tally) in run.tallies() {
        assert!(tally.checked > 0, "{oracle}/{} was never at stake", clause.name);
    }
}
