//! What mutants cost a build: how fast the corrected design judges the same programs, with mutants compiled in and without.
//!
//! ```console
//! $ cargo run --release -p kvm-mmu --example throughput
//! $ cargo run --release -p kvm-mmu --example throughput --no-default-features
//! ```
//!
//! Take the two in turn, several times, on a machine that does nothing else: mutants have an MMU of their own, so
//! the machine code of `KvmMmu<Corrected>` has no branch for them, and what differs is where the linker puts things.

#![expect(clippy::disallowed_types, reason = "measures time, and runs what the model accepts")]

use gpa_model::choices::FromRng;
use gpa_model::generate::{Generator, Profile};
use gpa_model::{FlushBackend, Host, Mmu, Program};
use gpa_oracles::Lockstep;
use kvm_mmu::{Corrected, KvmMmu};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use std::time::Instant;

const PROGRAMS: usize = 20_000;
/// How often each is measured; the fastest counts, because whatever else runs here only slows down.
const ROUNDS: usize = 5;

fn main() {
    let programs = programs();
    let mut mmu = KvmMmu::<Corrected>::default();
    let (mut judged, mut stepped, mut ops) = (f64::INFINITY, f64::INFINITY, 0);
    for _ in 0..ROUNDS {
        let mut run = Lockstep::default();
        judged = judged.min(seconds(|| {
            for program in &programs {
                assert!(run.run(&mut mmu, program).is_none(), "the corrected design breaks no law");
            }
        }));
        ops = run.counts().judged;
        stepped = stepped.min(seconds(|| programs.iter().for_each(|program| step(&mut mmu, program))));
    }
    let mutants = if cfg!(feature = "mutants") { "with" } else { "without" };
    let all: usize = programs.iter().map(|program| program.ops.len()).sum();
    println!("a build {mutants} mutants, the best of {ROUNDS} rounds");
    println!("judged        {:>12.0} ops/s", ops as f64 / judged);
    println!("MMU and model {:>12.0} ops/s", all as f64 / stepped);
}

fn programs() -> Vec<Program> {
    let mut choices = FromRng(Xoshiro256PlusPlus::seed_from_u64(1));
    let generator = Generator::new(Profile::default());
    let one = |_| {
        let mut program = Program::default();
        generator.program(&mut choices, &mut program);
        program
    };
    (0..PROGRAMS).map(one).collect()
}

/// The ops that the model accepts, as the lockstep run finds them, and nothing that judges.
fn step(mmu: &mut KvmMmu<Corrected>, program: &Program) {
    let (mut host, mut flush) = (Host::new(&program.vm), FlushBackend::default());
    let mut model = gpa_model::Model::new(&program.vm);
    mmu.reset(&program.vm);
    for op in &program.ops {
        if model.accepts(&host, op) {
            host.apply(op);
            flush.begin_op(program.vm.backend());
            let exit = mmu.step(&host, &mut flush, op);
            host.settle(op, &exit);
            model.step(&host, op, &exit);
        }
    }
}

fn seconds(what: impl FnOnce()) -> f64 {
    let start = Instant::now();
    what();
    start.elapsed().as_secs_f64()
}
