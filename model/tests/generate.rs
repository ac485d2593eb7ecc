//! Whatever makes programs, from random numbers or from any bytes, makes legal ones, most of whose ops mean something.

use arbitrary::{Arbitrary, Unstructured};
use gpa_model::choices::{Choices, FromRng};
use gpa_model::generate::{Generator, Profile, readdress};
use gpa_model::limits::OPS;
use gpa_model::{BackendMode, Exit, Gfn, Host, Model, Op, OpKind, Program, StolenMask, VmConfig};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

fn choices(seed: u64) -> FromRng<Xoshiro256PlusPlus> {
    FromRng(Xoshiro256PlusPlus::seed_from_u64(seed))
}

fn profiles() -> [Profile; 4] {
    let plain = Profile::default();
    [
        plain,
        Profile { windows: false, internal_slots: false, ..plain },
        Profile { stolen_low: 36, stolen_high: 38, ops_max: 200, ..plain },
        plain.only(|kind| matches!(kind, OpKind::Write | OpKind::SlotCreate)),
    ]
}

#[test]
fn every_byte_string_is_a_legal_program() {
    let mut bytes = vec![0u8; 600];
    for seed in 0..4000u64 {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        rng.fill_bytes(&mut bytes);
        // Every length counts: where bytes run out, decisions are 0.
        let len = seed as usize % bytes.len();
        for bytes in [&bytes[..len], &[0u8; 600][..len], &[0xffu8; 600][..len]] {
            let program = Program::arbitrary(&mut Unstructured::new(bytes)).expect("decoding is total");
            assert_eq!(program.check(), Ok(()), "{len} bytes, seed {seed}");
        }
    }
}

#[test]
fn generated_programs_are_legal_and_of_their_profile() {
    for profile in profiles() {
        let generator = Generator::new(profile);
        let mut program = Program::default();
        for seed in 0..1500 {
            generator.program(&mut choices(seed), &mut program);
            assert_eq!(program.check(), Ok(()), "seed {seed}: {profile:?}");
            let bits = program.vm.stolen();
            let placed = bits.bits().iter().all(|bit| (profile.stolen_low..=profile.stolen_high).contains(bit));
            assert!(placed, "seed {seed}: {:?} of {profile:?}", bits.bits());
            let begun = |op: &Op| matches!(op, Op::SlotBegin { .. } | Op::UnmapBegin { .. } | Op::FaultBegin { .. });
            assert!(profile.windows || !program.ops.iter().any(begun), "seed {seed}: {program:?}");
            let private = |op: &Op| matches!(op, Op::Slot { id, .. } | Op::SlotBegin { id, .. } if id.is_internal());
            assert!(profile.internal_slots || !program.ops.iter().any(private), "seed {seed}: {program:?}");
        }
    }
}

#[test]
fn mutation_keeps_a_program_legal_however_often() {
    for profile in profiles() {
        let generator = Generator::new(profile);
        let (mut program, mut other) = (Program::default(), Program::default());
        for seed in 0..8 {
            let mut choices = choices(seed);
            generator.program(&mut choices, &mut program);
            for round in 0..1500 {
                generator.program(&mut choices, &mut other);
                generator.mutate(&mut choices, &mut program, &other);
                assert_eq!(program.check(), Ok(()), "seed {seed}, round {round}: {profile:?}");
                assert!(program.ops.len() <= OPS);
            }
        }
    }
}

/// How many of the ops of `program` mean something, if every access is completed and every fault left pending.
fn accepted(program: &Program) -> u32 {
    let (mut model, mut host) = (Model::new(&program.vm), Host::new(&program.vm));
    let mut accepted = 0;
    for op in &program.ops {
        if model.accepts(&host, op) {
            accepted += 1;
            host.apply(op);
            let exit = if matches!(op, Op::FaultBegin { .. }) { Exit::Pending } else { Exit::Done };
            model.step(&host, op, &exit);
        }
    }
    accepted
}

#[test]
fn most_ops_of_a_program_mean_something() {
    for profile in profiles() {
        let generator = Generator::new(profile);
        let (mut program, mut other) = (Program::default(), Program::default());
        let (mut fresh, mut mutated) = ((0, 0), (0, 0));
        for seed in 0..1500 {
            let mut choices = choices(seed);
            generator.program(&mut choices, &mut program);
            fresh = (fresh.0 + accepted(&program), fresh.1 + program.ops.len() as u32);
            generator.program(&mut choices, &mut other);
            generator.mutate(&mut choices, &mut program, &other);
            mutated = (mutated.0 + accepted(&program), mutated.1 + program.ops.len() as u32);
        }
        let percent = |(accepted, all): (u32, u32)| 100 * accepted / all;
        println!("accepted: {} % of generated ops, {} % of mutated ones", percent(fresh), percent(mutated));
        assert!(percent(fresh) > 50 && percent(mutated) > 50, "{profile:?}");
    }
}

#[test]
fn an_op_said_of_another_vm_is_legal_there() {
    let masks = [&[][..], &[40], &[21], &[45, 46, 47]].map(|bits| StolenMask::new(bits).unwrap());
    let vms: Vec<VmConfig> = masks
        .into_iter()
        .flat_map(|mask| [1, 4].map(|vcpus| VmConfig::new(mask, vcpus, Gfn::new(0x100), BackendMode::Works).unwrap()))
        .collect();
    let generator = Generator::new(Profile::default());
    let mut program = Program::default();
    for seed in 0..400 {
        let mut choices = choices(seed);
        generator.program(&mut choices, &mut program);
        let to = vms[choices.below(vms.len() as u32) as usize];
        let ops = program.ops.iter().map(|op| readdress(&program.vm, &to, *op)).collect();
        assert_eq!(Program { vm: to, ops, comment: Vec::new() }.check(), Ok(()), "seed {seed}");
    }
}
