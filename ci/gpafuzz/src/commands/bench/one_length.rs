//! Programs of which a certain number of ops is judged, on several machines at once: what a rate of programs means hangs on both.

use super::BenchArgs;
use super::{ROUNDS, replay_once, time};
use crate::target::{Opened, Target, TargetError};
use gpa_model::choices::FromRng;
use gpa_model::generate::{Generator, Profile};
use gpa_model::{Exit, Host, Model, Op, Program};
use gpa_oracles::Lockstep;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use std::panic::resume_unwind;
use std::sync::Barrier;
use std::thread;

/// How many ops a program is generated with for each that is wanted of it, so that enough of them mean something in most.
const GENERATED: u32 = 4;

/// How long the fastest of all rounds took, in each of which every job judges as many programs of `ops` judged ops as `args` says, on a
/// target of its own, made by `open`. All begin each round at once, and it has ended when the last of them has. `None` if there is no
/// such target.
pub(super) fn seconds(
    ops: u8,
    args: &BenchArgs,
    open: impl Fn() -> Option<Result<Opened, TargetError>> + Sync,
) -> Result<Option<f64>, TargetError> {
    let start = Barrier::new(args.jobs.into());
    let job = |job: u8| {
        let seed = args.seed.wrapping_add(job.into());
        let mut prepared = open().transpose().and_then(|opened| {
            let prepare =
                |mut opened: Opened| programs(opened.target.as_mut(), ops, seed, args.runs).map(|it| (opened, it));
            opened.map(prepare).transpose()
        });
        let mut rounds = [0.0; ROUNDS];
        for round in &mut rounds {
            // A job that failed still meets the others here, or they would wait forever.
            start.wait();
            let Ok(Some((opened, programs))) = &mut prepared else { continue };
            match time(|| replay_once(opened.target.as_mut(), programs).map(|_| ())) {
                Ok(seconds) => *round = seconds,
                Err(error) => prepared = Err(error),
            }
        }
        prepared.map(|prepared| prepared.map(|_| rounds))
    };
    let jobs = thread::scope(|scope| {
        let jobs: Vec<_> = (0..args.jobs).map(|number| scope.spawn(move || job(number))).collect();
        let jobs = jobs.into_iter().map(|job| job.join().unwrap_or_else(|panic| resume_unwind(panic)));
        jobs.collect::<Result<Option<Vec<_>>, _>>()
    });
    let last = |jobs: &[[f64; ROUNDS]], round: usize| jobs.iter().map(|rounds| rounds[round]).fold(0.0, f64::max);
    Ok(jobs?.map(|jobs| (0..ROUNDS).map(|round| last(&jobs, round)).fold(f64::INFINITY, f64::min)))
}

/// `count` programs without anything that means nothing, of each of which `target` lets exactly so many `ops` be judged.
fn programs(target: &mut dyn Target, ops: u8, seed: u64, count: u64) -> Result<Vec<Program>, TargetError> {
    let generator = Generator::new(Profile { ops_max: GENERATED * u32::from(ops), ..target.profile() });
    let mut choices = FromRng(Xoshiro256PlusPlus::seed_from_u64(seed));
    let (mut run, mut judged, mut programs) = (Lockstep::default(), 0, Vec::new());
    while (programs.len() as u64) < count {
        let mut program = Program::default();
        generator.program(&mut choices, &mut program);
        cut(&mut program, ops.into());
        let violation =
            if program.ops.len() == usize::from(ops) { target.judge(&mut run, &program)? } else { continue };
        let before = std::mem::replace(&mut judged, run.counts().judged);
        if violation.is_none() && judged - before == u64::from(ops) {
            programs.push(program);
        }
    }
    Ok(programs)
}

/// Leave the first `ops` that mean something, if a fault is pending until it ends.
fn cut(program: &mut Program, ops: usize) {
    let (mut model, mut host) = (Model::new(&program.vm), Host::new(&program.vm));
    program.ops.retain(|op| {
        let accepted = model.accepts(&host, op);
        if accepted {
            host.apply(op);
            let exit = if matches!(op, Op::FaultBegin { .. }) { Exit::Pending } else { Exit::Done };
            model.step(&host, op, &exit);
        }
        accepted
    });
    program.ops.truncate(ops);
}
