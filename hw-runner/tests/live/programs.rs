//! Programs on the host's `/dev/kvm`.

use crate::{Outcome, Skipped, if_present, skip, trial, trials};
use gpa_model::choices::FromRng;
use gpa_model::generate::{Generator, Profile};
use gpa_model::{Exit, Op, OpKind, Pfn, Program, Reclaim};
use gpa_oracles::{Lockstep, Tally};
use hw_runner::{AliasMethod, Exercised, Machine, Replay, Trace, profile};
use libtest_mimic::Trial;
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use std::path::Path;

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = trials![
        random_programs_are_clean_on_hardware,
        a_program_is_answered_the_same_after_any_other,
        oracles_object_to_a_falsified_recording,
        a_program_with_other_stolen_bits_is_unsupported,
        an_unsupported_reclaim_changes_nothing,
        a_fault_is_held_open_while_the_host_takes_its_page_away,
        prefaults_agree_with_the_model_or_are_unsupported,
    ];
    for alias_method in AliasMethod::ALL {
        let name = format!("random_programs_are_clean_with_{alias_method}");
        trials.push(trial(&name, move || random_programs_are_clean_with(alias_method)));
    }
    trials
}

fn machine() -> Result<Machine, Skipped> {
    if_present(Machine::open())
}

fn random_programs(count: usize) -> Vec<Program> {
    programs(profile(), count)
}

fn programs(profile: Profile, count: usize) -> Vec<Program> {
    let generator = Generator::new(profile);
    let mut choices = FromRng(Xoshiro256PlusPlus::seed_from_u64(0x67_7061));
    let make = |_| {
        let mut program = Program::default();
        generator.program(&mut choices, &mut program);
        program
    };
    (0..count).map(make).collect()
}

fn tally(run: &Lockstep, oracle: &str, clause: &str) -> Tally {
    let mut tallies = run.tallies().filter(|(name, found, _)| *name == oracle && found.name == clause);
    tallies.next().expect("a clause of that name").2
}

fn random_programs_are_clean_on_hardware() -> Outcome {
    let mut machine = machine()?;
    let (mut run, mut replay) = (Lockstep::default(), Replay::default());
    for (n, program) in random_programs(400).iter().enumerate() {
        let trace = machine.run(program).unwrap_or_else(|error| panic!("program {n}: {error}"));
        assert_eq!(trace.missing(), None, "program {n}");
        replay.load(trace);
        let (report, violation) = gpa_oracles::report(&mut run, &mut replay, program, "kvm");
        assert!(violation.is_none(), "program {n}\n{report}");
    }
    if !machine.fingerprint().native {
        return skip("the programs are clean, but this KVM is not proven to run guests natively");
    }
    assert_eq!(run.counts().unsupported, 0);
    for (oracle, clause) in [("gfn_unalias", "exit"), ("alias_flush", "stale-access"), ("dirty_log", "missing")] {
        let tally = tally(&run, oracle, clause);
        assert!(tally.checked > 0, "{oracle}/{clause}: {tally:?}");
    }
    Ok(())
}

/// Observations depend on the program alone, not on earlier programs of the same machine.
fn a_program_is_answered_the_same_after_any_other() -> Outcome {
    let mut machine = machine()?;
    let programs = random_programs(60);
    let first: Vec<Trace> = programs.iter().map(|program| machine.run(program).expect("a run")).collect();
    for (program, first) in programs.iter().zip(&first).rev() {
        assert_eq!(machine.run(program).expect("a run"), *first);
    }
    let mut fresh = Machine::open().expect("another machine");
    for (program, first) in programs.iter().zip(&first).step_by(7) {
        assert_eq!(fresh.run(program).expect("a run"), *first);
    }
    Ok(())
}

/// The positive control on hardware: the oracles object to a recording with one changed identity.
fn oracles_object_to_a_falsified_recording() -> Outcome {
    let mut machine = machine()?;
    let text = "gpafuzz-program 1\nvm stolen=40 vcpus=2 base=0x1e0 flush=works\n\
                slot 0 create gfn=0x1e0 pages=2 hva=0\nv0 write 0x1e0\nunmap hva=0 pages=1\nv1 read 0x1e0@1\n";
    let program = gpa_model::text::parse(text).expect("a program");
    let mut trace = machine.run(&program).expect("a run");
    let (mut run, mut replay) = (Lockstep::default(), Replay::default());
    replay.load(trace.clone());
    assert_eq!(run.run(&mut replay, &program), None);
    trace.observations[3] = Some(Exit::Memory(Pfn::new(1)));
    replay.load(trace);
    assert_eq!(run.run(&mut replay, &program).map(|violation| violation.at), Some(3));
    Ok(())
}

/// Stolen bits that memslots cannot imitate are not an error: the ops are unsupported, and counted.
fn a_program_with_other_stolen_bits_is_unsupported() -> Outcome {
    let mut machine = machine()?;
    let text = "gpafuzz-program 1\nvm stolen=30 vcpus=1 base=0x1e0 flush=works\nv0 read 0x1e0@1\n";
    let program = gpa_model::text::parse(text).expect("a program");
    let trace = machine.run(&program).expect("a run");
    assert_eq!(trace.observations, [None]);
    let (mut run, mut replay) = (Lockstep::default(), Replay::default());
    replay.load(trace);
    assert_eq!(run.run(&mut replay, &program), None);
    assert_eq!(run.counts().unsupported, 1);
    Ok(())
}

/// Every alias method that works here keeps the promise of aliasing, whichever way pages are reclaimed.
fn random_programs_are_clean_with(alias_method: AliasMethod) -> Outcome {
    let mut machine = if_present(Machine::open_with(alias_method))?;
    let reclaims = machine.reclaims().available();
    let mut profile = Profile { reclaims, ..profile() };
    if machine.can_prefault() {
        profile.kinds = profile.kinds.with(OpKind::Prefault);
    }
    if alias_method.has_attributes() {
        profile.kinds = profile.kinds.with(OpKind::Attributes);
    }
    let programs = programs(profile, 120);
    let (mut run, mut replay, mut exercised) = (Lockstep::default(), Replay::default(), Exercised::default());
    for (n, program) in programs.iter().enumerate() {
        let trace = machine.run(program).unwrap_or_else(|error| panic!("{alias_method}, program {n}: {error}"));
        assert_eq!(trace.missing(), None, "{alias_method}, program {n}");
        exercised.add(&trace);
        replay.load(trace);
        let (report, violation) = gpa_oracles::report(&mut run, &mut replay, program, "kvm");
        assert!(violation.is_none(), "{alias_method}, program {n}\n{report}");
    }
    for (reclaim, count) in machine.reclaims().counts() {
        let used = count.done + count.declined > 0;
        assert_eq!(used, reclaims.contains(reclaim), "{alias_method}: {} {count:?}", reclaim.name());
    }
    for count in exercised.counts() {
        let why = Reclaim::named(count.way).and_then(|reclaim| machine.reclaims().lacking(reclaim));
        let elsewhere = match count.way {
            "prefault" => !machine.can_prefault(),
            "attributes" => !alias_method.has_attributes(),
            "ioeventfd" => alias_method != AliasMethod::Ioeventfds,
            "held-fault" => machine.held_faults_lacking().is_some(),
            _ => false,
        };
        assert!(count.done > 0 || why.is_some_and(|why| !why.is_empty()) || elsewhere, "{alias_method}: {count:?}");
    }
    Ok(())
}

/// An unsupported way to reclaim pages changes nothing.
fn an_unsupported_reclaim_changes_nothing() -> Outcome {
    let mut machine = machine()?;
    let lacking = Reclaim::ALL.into_iter().find(|reclaim| machine.reclaims().lacking(*reclaim).is_some());
    let Some(reclaim) = lacking else { return skip("this host has every way to reclaim pages") };
    let text = format!(
        "gpafuzz-program 1\nvm stolen=40 vcpus=1 base=0x1e0 flush=works\n\
         slot 0 create gfn=0x1e0 pages=1 hva=3\nunmap hva=3 pages=1 by={}\nv0 read 0x1e0@1\n",
        reclaim.name()
    );
    let program = gpa_model::text::parse(&text).expect("a program");
    let trace = machine.run(&program).expect("a run");
    assert_eq!(trace.observations[1..], [Some(Exit::Unsupported), Some(Exit::Memory(Pfn::new(4)))]);
    let (mut run, mut replay) = (Lockstep::default(), Replay::default());
    replay.load(trace);
    assert_eq!(run.run(&mut replay, &program), None);
    assert_eq!(run.counts().unsupported, 1);
    Ok(())
}

/// A vCPU in a held fault finds what is there when the fault ends, however often the page was reclaimed.
fn a_fault_is_held_open_while_the_host_takes_its_page_away() -> Outcome {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/seeds/hw_fault_waits_while_pages_go.prog");
    let program = gpa_model::text::parse(&std::fs::read_to_string(path).expect("the seed")).expect("a program");
    let begun: Vec<usize> =
        (0..program.ops.len()).filter(|&at| matches!(program.ops[at], Op::FaultBegin { .. })).collect();
    let mut machine = machine()?;
    if let Some(why) = machine.held_faults_lacking() {
        return skip(format!("no userfaultfd: {why}"));
    }
    let trace = machine.run(&program).expect("a run");
    for at in begun {
        assert_eq!(trace.observations[at], Some(Exit::Pending), "op {}", at + 1);
    }
    let (mut run, mut replay) = (Lockstep::default(), Replay::default());
    replay.load(trace);
    let (report, violation) = gpa_oracles::report(&mut run, &mut replay, &program, "kvm");
    assert!(violation.is_none(), "{report}");
    assert_eq!(run.counts().skipped, 0, "{report}");
    Ok(())
}

/// Prefaults agree with the model. On a KVM without prefaults they are unsupported and change nothing.
fn prefaults_agree_with_the_model_or_are_unsupported() -> Outcome {
    let mut machine = machine()?;
    let text = "gpafuzz-program 1\nvm stolen=40 vcpus=1 base=0x1e0 flush=works\n\
                slot 0 create gfn=0x1e0 pages=2 hva=0\nv0 prefault 0x1e1@1\nv0 prefault 0x1e4@1\n\
                unmap hva=1 pages=1\nv0 prefault 0x1e1\nv0 read 0x1e1@1\n";
    let program = gpa_model::text::parse(text).expect("a program");
    let trace = machine.run(&program).expect("a run");
    let (mut run, mut replay) = (Lockstep::default(), Replay::default());
    let unsupported = trace.observations.iter().filter(|exit| **exit == Some(Exit::Unsupported)).count();
    replay.load(trace);
    let (report, violation) = gpa_oracles::report(&mut run, &mut replay, &program, "kvm");
    assert!(violation.is_none(), "{report}");
    assert_eq!(run.counts().unsupported, unsupported as u64, "{report}");
    if !machine.can_prefault() {
        assert_eq!(unsupported, 3, "{report}");
        return skip("no KVM_PRE_FAULT_MEMORY; the ops are unsupported, as they must be");
    }
    Ok(())
}
