//! Programs on the host's own `/dev/kvm`. Where it does not open, each test says SKIPPED and why.

use gpa_model::Program;
use gpa_model::choices::FromRng;
use gpa_model::generate::Generator;
use gpa_oracles::{Lockstep, Tally};
use hw_runner::{Machine, Replay, profile};
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

/// A machine, or `None` after saying why there is none. A machine that is there but broken is a failure.
fn machine() -> Option<Machine> {
    match Machine::open() {
        Ok(machine) => Some(machine),
        Err(error) if error.is_absence() => {
            println!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("/dev/kvm is there, but: {error}"),
    }
}

fn random_programs(count: usize) -> Vec<Program> {
    let generator = Generator::new(profile());
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

#[test]
fn random_programs_are_clean_on_hardware() {
    let Some(mut machine) = machine() else { return };
    let (mut run, mut replay) = (Lockstep::default(), Replay::default());
    for (n, program) in random_programs(400).iter().enumerate() {
        let trace = machine.run(program).unwrap_or_else(|error| panic!("program {n}: {error}"));
        assert_eq!(trace.missing(), None, "program {n}");
        replay.load(trace);
        let (report, violation) = gpa_oracles::report(&mut run, &mut replay, program, "kvm");
        assert!(violation.is_none(), "program {n}\n{report}");
    }
    if !machine.fingerprint().native {
        println!("SKIPPED the counts: this KVM is not proven to run guests natively");
        return;
    }
    assert_eq!(run.counts().unsupported, 0);
    println!("{:?}", run.counts());
    if let Some(proof) = machine.proof() {
        println!("{}", proof.after.show_since(&proof.before));
        println!("{}", machine.witness().show_since(&proof.after));
    }
    for (oracle, clause) in [
        ("gfn_unalias", "exit"),
        ("private_slot", "alias-exit"),
        ("alias_flush", "stale-access"),
        ("dirty_log", "missing"),
    ] {
        let tally = tally(&run, oracle, clause);
        println!("{oracle}/{clause}: {tally:?}");
        assert!(tally.checked > 0, "{oracle}/{clause}: {tally:?}");
    }
}
