//! `gpafuzz bench`: how fast programs are judged, and what the engine costs: the same programs fuzzed and merely replayed.

mod one_length;

use super::{CliError, Exit, KernelArgs};
use crate::engine::{Budget, Engine};
use crate::target::registry;
use crate::target::{Target, TargetError};
use crate::terminal::print;
use clap::Args;
use gpa_model::Program;
use gpa_model::limits::OPS;
use gpa_oracles::Lockstep;
use kvm_ko::process::used_by;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Measure how fast a target is judged, and what the fuzzing engine adds.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The target
    #[arg(long, value_name = "NAME", default_value = registry::DEFAULT)]
    pub target: String,
    /// Another kernel, for targets of the lab
    #[command(flatten)]
    pub kernel: KernelArgs,
    /// Programs
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..=500_000))]
    pub runs: u64,
    /// Seed of all random choices
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Programs with exactly this many judged ops, instead of those of a campaign
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=(OPS / 4) as i64))]
    pub ops: Option<u8>,
    /// Targets at once, each with programs from its own seed
    #[arg(long, value_name = "N", default_value_t = 1, requires = "ops", value_parser = clap::value_parser!(u8).range(1..))]
    pub jobs: u8,
}

/// How often each of the two is measured; the fastest counts, because whatever else runs here only slows down.
const ROUNDS: usize = 3;

/// Carry out the command.
///
/// # Errors
/// A [`CliError`] if the target cannot be used.
pub fn run(args: &BenchArgs) -> Result<Exit, CliError> {
    let name = args.kernel.named(&args.target)?;
    match args.ops {
        Some(ops) => of_one_length(&name, ops, args)?,
        None => of_a_campaign(&name, args)?,
    }
    Ok(Exit::Clean)
}

/// Programs of so many judged ops each.
fn of_one_length(name: &str, ops: u8, args: &BenchArgs) -> Result<(), TargetError> {
    let programs = args.runs * u64::from(args.jobs);
    let rates = |seconds| rates(programs, programs * u64::from(ops), seconds);
    let Some(watched) = one_length::seconds(ops, args, || Some(registry::open(name)))? else { return Ok(()) };
    print(&format!(
        "{programs} programs of {ops} judged ops, seed {}, {} at once, the best of {ROUNDS} rounds\ntight replay {}\n",
        args.seed,
        args.jobs,
        rates(watched)
    ));
    if let Some(unwatched) = one_length::seconds(ops, args, || registry::open_unwatched(name))? {
        print(&beside_unwatched(&rates(unwatched), watched / unwatched));
    }
    Ok(())
}

/// The programs that a campaign runs.
fn of_a_campaign(name: &str, args: &BenchArgs) -> Result<(), TargetError> {
    let mut opened = registry::open(name)?;
    let target = opened.target.as_mut();
    let programs = record(target, args)?;
    let (mut fuzz, mut replay, mut ops) = (f64::INFINITY, f64::INFINITY, 0);
    for _ in 0..ROUNDS {
        fuzz = fuzz.min(time(|| fuzz_once(target, args).map(|_| ()))?);
        replay = replay.min(time(|| replay_once(target, &programs).map(|judged| ops = judged))?);
    }
    let rates = |seconds| rates(programs.len() as u64, ops, seconds);
    print(&format!(
        "{} programs, {ops} judged ops, seed {}, the best of {ROUNDS} rounds\nfuzz loop    {}\ntight replay {}\nratio        {:.3}\n",
        programs.len(),
        args.seed,
        rates(fuzz),
        rates(replay),
        replay / fuzz
    ));
    if let Some(worker) = target.worker() {
        print(&in_processor_time(target, worker, &programs)?);
    }
    // Another machine of its own, and so after this one is gone.
    drop(opened);
    if let Some(unwatched) = registry::open_unwatched(name) {
        let mut opened = unwatched?;
        let mut blind = f64::INFINITY;
        for _ in 0..ROUNDS {
            blind = blind.min(time(|| replay_once(opened.target.as_mut(), &programs).map(|_| ()))?);
        }
        print(&beside_unwatched(&rates(blind), replay / blind));
    }
    Ok(())
}

/// What is said of a target whose programs another process carries out, in time of the processor, which is the same however busy the
/// machine is: all that judging them takes, and what the worker takes of it.
fn in_processor_time(target: &mut dyn Target, worker: u32, programs: &[Program]) -> Result<String, TargetError> {
    let used = |id| used_by(id).ok_or_else(|| TargetError::Failed(format!("process {id} is gone")));
    let (mut judged, mut carried_out) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        let (ours, before) = (used(std::process::id())?, used(worker)?);
        replay_once(target, programs)?;
        let (all, of_worker) = (used(std::process::id())? - ours, used(worker)? - before);
        judged = judged.min((all + of_worker).as_secs_f64());
        let before = used(worker)?;
        programs.iter().try_for_each(|program| target.carry_out(program))?;
        carried_out = carried_out.min((used(worker)? - before).as_secs_f64());
    }
    let rate = |seconds: f64| programs.len() as f64 / seconds;
    Ok(format!(
        "in time of the processor:\njudged       {:>10.0} programs/s\nin the worker{:>10.0} programs/s, not judged\nratio        {:.3}\n",
        rate(judged),
        rate(carried_out),
        carried_out / judged
    ))
}

fn rates(programs: u64, ops: u64, seconds: f64) -> String {
    format!("{:>10.0} programs/s {:>10.0} judged ops/s", programs as f64 / seconds, ops as f64 / seconds)
}

/// What is said of a target whose code need not be watched.
fn beside_unwatched(rates: &str, slower: f64) -> String {
    format!("unwatched    {rates}\nto see which code is executed makes it {slower:.2} times as slow\n{PKVM}\n")
}

/// The rate that others report for fuzzing a hypervisor's memory management in an emulated machine.
const PKVM: &str = "beside it: about 55 hypercalls/s, reported by work that does this for Arm's pKVM";

/// Judge each of `programs`, and say how many ops were judged.
fn replay_once(target: &mut dyn Target, programs: &[Program]) -> Result<u64, TargetError> {
    let mut run = Lockstep::default();
    for program in programs {
        target.judge(&mut run, program)?;
    }
    Ok(run.counts().judged)
}

/// The programs that a campaign runs.
fn record(target: &mut dyn Target, args: &BenchArgs) -> Result<Vec<Program>, TargetError> {
    let stop = AtomicBool::new(false);
    let mut engine = Engine::new(target, Lockstep::default(), args.seed, budget(args, &stop))?;
    engine.record();
    while !engine.is_done() {
        engine.round()?;
    }
    Ok(engine.recording())
}

fn fuzz_once(target: &mut dyn Target, args: &BenchArgs) -> Result<u64, TargetError> {
    let stop = AtomicBool::new(false);
    let mut engine = Engine::new(target, Lockstep::default(), args.seed, budget(args, &stop))?;
    while !engine.is_done() {
        engine.round()?;
    }
    Ok(engine.executions())
}

fn budget<'a>(args: &BenchArgs, stop: &'a AtomicBool) -> Budget<'a> {
    Budget { runs: Some(args.runs), deadline: None, stop }
}

fn time(what: impl FnOnce() -> Result<(), TargetError>) -> Result<f64, TargetError> {
    let start = Instant::now();
    what()?;
    Ok(start.elapsed().as_secs_f64())
}
