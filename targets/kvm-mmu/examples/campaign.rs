//! A fixed campaign on the designs that break no law: the corpus, and programs drawn from one seed. It ends at the first objection.
//!
//! ```console
//! $ cargo run --release -p kvm-mmu --no-default-features --example campaign
//! ```
//!
//! `cargo xtask mutants` judges changes of the source by it. Exit status: 0 if no oracle objects, 1 if one does, 101 after a panic.

use gpa_model::choices::FromRng;
use gpa_model::generate::{Generator, Profile};
use gpa_model::{Mmu, Program, text};
use gpa_oracles::Lockstep;
use kvm_mmu::{Corrected, DirectMirror, EptNoAd, KvmMmu, Npt, Policy};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

/// Programs drawn for each target.
const PROGRAMS: usize = 20_000;

fn targets() -> [(&'static str, Box<dyn Mmu>, Profile); 4] {
    let (corrected, mirror): (&dyn Policy, &dyn Policy) = (&Corrected, &DirectMirror);
    let vm = gpa_model::VmConfig::default();
    let shared = Profile { shared_private: 4, ..Profile::default() };
    // One policy behind a pointer, so that the MMU is compiled once for each format.
    [
        ("kvm-mmu", Box::new(KvmMmu::<_>::with_policy(corrected, &vm)), Profile::default()),
        ("tdp-mmu", Box::new(KvmMmu::<_>::with_policy(mirror, &vm)), shared),
        ("kvm-mmu-no-ad", Box::new(KvmMmu::<_, EptNoAd>::with_policy(corrected, &vm)), Profile::default()),
        ("kvm-mmu-npt", Box::new(KvmMmu::<_, Npt>::with_policy(corrected, &vm)), Profile::default()),
    ]
}

/// The seeds and regressions of the corpus, on which the corrected designs are clean.
fn corpus() -> Result<Vec<Program>, Box<dyn Error>> {
    let mut programs = Vec::new();
    for folder in ["seeds", "regressions"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus").join(folder);
        let mut paths: Vec<_> =
            std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
        paths.sort();
        for path in paths {
            programs.push(text::parse(&std::fs::read_to_string(path)?)?);
        }
    }
    Ok(programs)
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let corpus = corpus()?;
    for (name, mut mmu, profile) in targets() {
        let mut run = Lockstep::default();
        let mut judge = |program: &Program| {
            let violation = run.run(&mut mmu, program)?;
            println!("{name}: {violation}\n{}", text::print(program));
            Some(violation)
        };
        if corpus.iter().any(|program| judge(program).is_some()) {
            return Ok(ExitCode::FAILURE);
        }
        let mut choices = FromRng(Xoshiro256PlusPlus::seed_from_u64(1));
        let (generator, mut program) = (Generator::new(profile), Program::default());
        for _ in 0..PROGRAMS {
            generator.program(&mut choices, &mut program);
            if judge(&program).is_some() {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    println!("no oracle objects");
    Ok(ExitCode::SUCCESS)
}
