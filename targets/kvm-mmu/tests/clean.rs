//! The corrected design breaks no law, in any entry format, on programs drawn at random.

use gpa_model::choices::FromRng;
use gpa_model::generate::{Generator, Profile};
use gpa_model::{Exit, Mmu, Program, text};
use gpa_oracles::{Event, Lockstep};
use kvm_mmu::{Corrected, DirectMirror, EptNoAd, KvmMmu, Npt};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

#[test]
fn with_ept_no_law_is_broken() {
    breaks_no_law(KvmMmu::<Corrected>::default(), "kvm-mmu");
}

#[test]
fn without_accessed_and_dirty_bits_no_law_is_broken() {
    breaks_no_law(KvmMmu::<Corrected, EptNoAd>::default(), "kvm-mmu-no-ad");
}

#[test]
fn with_npt_no_law_is_broken() {
    breaks_no_law(KvmMmu::<Corrected, Npt>::default(), "kvm-mmu-npt");
}

#[test]
fn with_direct_and_mirrored_roots_no_law_is_broken() {
    breaks_no_law(KvmMmu::<DirectMirror>::default(), "tdp-mmu");
}

#[test]
fn with_private_and_shared_memory_no_law_is_broken() {
    let profile = Profile { shared_private: 1, stolen_bits_max: 1, ..Profile::default() };
    let mut choices = FromRng(Xoshiro256PlusPlus::seed_from_u64(1));
    let (generator, mut program) = (Generator::new(profile), Program::default());
    let (mut run, mut mmu) = (Lockstep::default(), KvmMmu::<DirectMirror>::default());
    // Accesses that ended in memory of either kind, and that wanted the kind which was not there.
    let (mut private, mut shared, mut other) = (0, 0, 0);
    for n in 0..50_000 {
        generator.program(&mut choices, &mut program);
        let violation = run.watch(&mut mmu, &program, |event| {
            let Event::Judged(step, _) = event else { return };
            let Some((_, alias)) = step.accessed_frame().filter(|_| step.model.vm().shared_private()) else { return };
            match step.exit {
                Exit::Memory(_) if alias.is_none() => private += 1,
                Exit::Memory(_) => shared += 1,
                Exit::MemoryFault => other += 1,
                _ => {}
            }
        });
        if let Some(violation) = violation {
            let (report, _) = gpa_oracles::report(&mut run, &mut mmu, &program, "tdp-mmu");
            panic!("program {n}: {violation}\n{}\n{report}", text::print(&program));
        }
    }
    assert!(private > 10_000 && shared > 10_000 && other > 10_000, "{private} private, {shared} shared, {other} other");
}

fn breaks_no_law(mut mmu: impl Mmu, name: &str) {
    let mut choices = FromRng(Xoshiro256PlusPlus::seed_from_u64(1));
    let generator = Generator::new(Profile::default());
    let mut run = Lockstep::default();
    let mut program = Program::default();
    for n in 0..50_000 {
        generator.program(&mut choices, &mut program);
        if let Some(violation) = run.run(&mut mmu, &program) {
            let (report, _) = gpa_oracles::report(&mut run, &mut mmu, &program, name);
            panic!("program {n}: {violation}\n{}\n{report}", text::print(&program));
        }
    }
    for (oracle, clause, tally) in run.tallies() {
        let shown = clause.can_be_checked(mmu.capabilities());
        assert_eq!(tally.checked > 0, shown, "how often {oracle}/{} was at stake", clause.name);
    }
}
