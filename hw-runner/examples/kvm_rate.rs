//! How many programs a second run on this host's `/dev/kvm`, recorded and judged, and KVM's counters meanwhile.
//!
//! System calls bound the rate of random programs, not the guest: each has some twenty memslot changes, each of which waits for
//! a grace period of the kernel, and as many entries, because another vCPU, a hole or an op of the host ends a list of accesses.

use gpa_model::choices::FromRng;
use gpa_model::generate::{Generator, Profile};
use gpa_model::{Program, VmConfig};
use gpa_oracles::Lockstep;
use hw_runner::{Machine, MachineError, Replay, Trace, profile};
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use std::time::{Duration, Instant};

const PROGRAMS: u32 = 1000;
const DENSE_RUNS: u32 = 400;

fn main() -> Result<(), MachineError> {
    let opening = Instant::now();
    let mut machine = Machine::open()?;
    println!("opened in {:?}", opening.elapsed());
    random(&mut machine, "any frame", profile())?;
    random(&mut machine, "few holes", Profile { few_holes: true, ..profile() })?;
    dense(&mut machine)
}

/// Random programs; the second kind is what a campaign runs.
fn random(machine: &mut Machine, kind: &str, profile: Profile) -> Result<(), MachineError> {
    let generator = Generator::new(profile);
    let mut choices = FromRng(Xoshiro256PlusPlus::seed_from_u64(1));
    let (mut program, mut run, mut replay) = (Program::default(), Lockstep::default(), Replay::default());
    let before = machine.witness();
    let (mut running, mut judging) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..PROGRAMS {
        generator.program(&mut choices, &mut program);
        let mut trace = replay.unload();
        let start = Instant::now();
        machine.run_into(&program, &mut trace)?;
        running += start.elapsed();
        let start = Instant::now();
        replay.load(trace);
        if let Some(violation) = run.run(&mut replay, &program) {
            println!("{violation}");
        }
        judging += start.elapsed();
    }
    let rate = f64::from(PROGRAMS) / running.as_secs_f64();
    println!("{kind}: {rate:.0} programs/s on KVM, judged in {judging:?} for {running:?} of running");
    println!("        {}", machine.witness().show_since(&before));
    Ok(())
}

/// One memslot and as many accesses as a program can hold, all of one vCPU: the most that batching can give.
fn dense(machine: &mut Machine) -> Result<(), MachineError> {
    let vm = VmConfig::default();
    let mut text = String::from("gpafuzz-program 1\nvm stolen=40 vcpus=1 base=0x1e0 flush=works\n");
    text.push_str("slot 0 create gfn=0x1e0 pages=64 hva=0\n");
    for n in 1..gpa_model::limits::OPS {
        let gpa = gpa_model::text::print_gpa(&vm, vm.gpa(n % 64, n / 64 % 2));
        text.push_str(&format!("v0 {} {gpa}\n", ["read", "write", "execute"][n % 3]));
    }
    let program = gpa_model::text::parse(&text).expect("a program within limits");
    let before = machine.witness();
    let mut trace = Trace::default();
    let start = Instant::now();
    for _ in 0..DENSE_RUNS {
        machine.run_into(&program, &mut trace)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let accesses = (machine.witness().accesses - before.accesses) as f64;
    println!("dense:  {:.0} programs/s, {:.0} accesses/s", f64::from(DENSE_RUNS) / seconds, accesses / seconds);
    println!("        {}", machine.witness().show_since(&before));
    Ok(())
}
