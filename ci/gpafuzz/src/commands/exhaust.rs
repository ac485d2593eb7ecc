//! `gpafuzz exhaust`: every program up to a bound over a small scope, and what an oracle objects to in the fewest ops.

use super::{CliError, EXIT_CODES, Exit};
use crate::campaign::known;
use crate::campaign::store::Store;
use crate::campaign::summary::{FindingSummary, finding_lines};
use crate::campaign::{self, CampaignError, Setting};
use crate::engine::Found;
use crate::target::registry;
use crate::target::{RunRecord, Target, TargetError};
use crate::terminal::interrupt;
use crate::terminal::progress::{Ticker, scaled};
use crate::terminal::{note, print};
use clap::Args;
use clap::builder::TypedValueParser;
use gpa_model::exhaust::{Answer, Explored, Scope};
use gpa_model::limits::{SCOPE_FRAMES, SCOPE_OPS, SCOPE_SLOTS};
use gpa_model::{Exit as OpExit, Logging, OpKind, Program};
use gpa_oracles::{Lockstep, Signature};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Run every program up to a number of ops over a small scope.
///
/// Programs that differ only in the names of vCPUs, memslots, blocks of host pages, notifier windows or stolen bits run once.
/// Shorter programs come first, so a finding is as short as the scope allows. Without --ops, the standard scopes run: edges,
/// everything at once, races, PML, dirty rings, zaps that yield, memslots that zap everything, and async page faults. Each
/// takes seconds.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct ExhaustArgs {
    /// Ops of the longest programs
    #[arg(long, value_name = "N", value_parser = at_most(SCOPE_OPS))]
    pub ops: Option<usize>,
    /// The target
    #[arg(long, value_name = "NAME", default_value = registry::DEFAULT)]
    pub target: String,
    /// Guest frames; from three on, the last one lies beyond the edge of a leaf table
    #[arg(long, value_name = "N", default_value = "2", value_parser = at_most(SCOPE_FRAMES), requires = "ops")]
    pub frames: usize,
    /// Memslots, and blocks of host pages behind them; from two on, the last memslot is private
    #[arg(long, value_name = "N", default_value = "2", value_parser = at_most(SCOPE_SLOTS), requires = "ops")]
    pub slots: usize,
    /// Aliases of each frame, the base name included: 1, 2 or 4
    #[arg(long, value_name = "N", default_value_t = 2, requires = "ops")]
    pub aliases: usize,
    /// vCPUs
    #[arg(long, value_name = "N", default_value_t = 1, requires = "ops")]
    pub vcpus: u8,
    /// Kinds of op, with commas between them [default: all]
    ///
    /// With `slot-end`, `fault-begin` and `unmap-begin`, ops that take time also come in two halves.
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = kind, requires = "ops")]
    pub kinds: Vec<OpKind>,
    /// The processor logs writes to logged slots (PML); they are not write-protected
    #[arg(long, requires = "ops")]
    pub pml: bool,
    /// Each vCPU has a dirty ring of this many entries, a power of two; memslots have no bitmaps
    #[arg(long, value_name = "ENTRIES", requires = "ops")]
    pub dirty_ring: Option<u8>,
    /// The deletion or move of a memslot zaps everything
    #[arg(long, requires = "ops")]
    pub slot_zap_all: bool,
    /// The host pages out memory, and the guest gets async page faults
    #[arg(long, requires = "ops")]
    pub async_pf: bool,
    /// Pages from one frame to the next; with 256, two frames fill a large leaf
    #[arg(long, value_name = "PAGES", requires = "ops")]
    pub stride: Option<u64>,
    /// Stop after this many programs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Also run programs that differ in names only
    #[arg(long)]
    pub unfolded: bool,
    /// Where findings are written
    #[arg(long, value_name = "DIR", default_value = "gpafuzz-out")]
    pub out: PathBuf,
}

/// Carry out the command.
///
/// # Errors
/// A [`CliError`]; what was found before is on disk.
pub fn run(args: &ExhaustArgs) -> Result<Exit, CliError> {
    let known = known::list()?;
    let mut opened = registry::open(&args.target)?;
    let target = opened.target.as_mut();
    if target.recorded().is_some() {
        let why = "expected one that runs any program, found one that answers from a record".into();
        return Err(TargetError::Failed(why).into());
    }
    let store = Store::open(&args.out)?;
    let setting = Setting { seed: 0, jobs: 1, resume: false, vcpus: None, store: &store, known: &known };
    let stop = interrupt::listen().map_err(CliError::Signal)?;
    let mut exit = Exit::Clean;
    for (scope, ops) in scopes(args)? {
        let scope = scope.restrict(target.profile().kinds);
        let scope = if args.unfolded { scope.unfolded() } else { scope };
        if explore(args, target, (&scope, ops), setting, stop)? {
            exit = Exit::Findings;
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(match (exit, interrupt::status()) {
        (Exit::Clean, Some(status)) => Exit::Interrupted(status),
        (exit, _) => exit,
    })
}

/// Go through one scope, and return whether there was anything new.
fn explore(
    args: &ExhaustArgs,
    target: &mut dyn Target,
    (scope, ops): (&Scope, usize),
    setting: Setting<'_>,
    stop: &AtomicBool,
) -> Result<bool, CliError> {
    note(&format!("every program of up to {ops} ops on {}: {}", args.target, said(scope)));
    let mut exploration = Exploration::new(&args.target, target, args.limit, stop);
    let start = Instant::now();
    let explored = scope.explore(ops, &mut |program, visit| {
        exploration.ticker.tick(|seconds| exploration.counts.line(&args.target, program, visit.permille, seconds));
        exploration.visit(program, visit, setting)
    });
    exploration.ticker.end();
    if let Some(error) = exploration.failed {
        return Err(error.into());
    }
    let seconds = start.elapsed().as_secs_f64();
    print(&exploration.table(args, scope, ops, explored, seconds));
    Ok(exploration.findings.iter().any(|finding| finding.known.is_none()))
}

/// The scope asked for, or else the standard ones.
fn scopes(args: &ExhaustArgs) -> Result<Vec<(Scope, usize)>, CliError> {
    let Some(ops) = args.ops else { return Ok(Scope::standard().into()) };
    let scope = Scope::new(args.frames, args.slots, args.aliases, args.vcpus).map_err(CliError::Scope)?;
    let scope = if args.kinds.is_empty() { scope } else { scope.only(&args.kinds) };
    let scope = args.stride.map_or(Ok(scope), |stride| scope.with_stride(stride)).map_err(CliError::Scope)?;
    let scope = args.dirty_ring.map_or(Ok(scope), |entries| scope.with_dirty_ring(entries)).map_err(CliError::Scope)?;
    let scope = if args.slot_zap_all { scope.with_slot_zap_all() } else { scope };
    let scope = if args.async_pf { scope.with_async_pf() } else { scope };
    Ok(vec![(if args.pml { scope.with_logging(Logging::Pml) } else { scope }, ops)])
}

fn said(scope: &Scope) -> String {
    let vm = scope.vm();
    format!("{} different ops, {} aliases, {} vCPUs", scope.alphabet().len(), vm.stolen().alias_count(), vm.vcpus())
}

/// A number from 1 to `most`.
fn at_most(most: usize) -> impl TypedValueParser<Value = usize> {
    clap::value_parser!(u64).range(1..=most as u64).map(|n| n as usize)
}

/// The kind of op called `name`, for the command line.
fn kind(name: &str) -> Result<OpKind, String> {
    let found = OpKind::ALL.into_iter().find(|kind| kind.name() == name);
    found.ok_or_else(|| format!("expected one of {}", OpKind::ALL.map(OpKind::name).join(", ")))
}

#[derive(Clone, Copy, Default)]
struct Counts {
    programs: u64,
    /// With those that differ from them in names only.
    unfolded: u64,
    findings: usize,
}

impl Counts {
    fn line(&self, target: &str, program: &Program, permille: u32, seconds: f64) -> String {
        format!(
            "{target}: {} ops: {}.{} %, {} programs, {} programs/s, findings {}",
            program.ops.len(),
            permille / 10,
            permille % 10,
            scaled(self.programs as f64),
            scaled(self.programs as f64 / seconds.max(0.001)),
            self.findings
        )
    }
}

struct Exploration<'a> {
    name: &'a str,
    target: &'a mut dyn Target,
    limit: Option<u64>,
    stop: &'a AtomicBool,
    run: Lockstep,
    counts: Counts,
    seen: BTreeSet<Signature>,
    findings: Vec<FindingSummary>,
    failed: Option<CampaignError>,
    ticker: Ticker,
}

impl<'a> Exploration<'a> {
    fn new(name: &'a str, target: &'a mut dyn Target, limit: Option<u64>, stop: &'a AtomicBool) -> Self {
        Self {
            name,
            target,
            limit,
            stop,
            run: Lockstep::default(),
            counts: Counts::default(),
            seen: BTreeSet::new(),
            findings: Vec::new(),
            failed: None,
            ticker: Ticker::default(),
        }
    }

    fn visit(&mut self, program: &Program, visit: gpa_model::exhaust::Visit, setting: Setting<'_>) -> Answer {
        if self.stop.load(Ordering::Relaxed) || self.limit.is_some_and(|limit| self.counts.programs >= limit) {
            return Answer::Stop;
        }
        match self.judge(program, visit.first, setting) {
            Ok(answer) => {
                if visit.first {
                    self.counts.programs += 1;
                    self.counts.unfolded += visit.symmetric;
                }
                answer
            }
            Err(error) => {
                self.failed = Some(error);
                Answer::Stop
            }
        }
    }

    /// What an oracle objects to is not made longer: the same would be found again.
    fn judge(&mut self, program: &Program, first: bool, setting: Setting<'_>) -> Result<Answer, CampaignError> {
        let Some(violation) = self.target.judge(&mut self.run, program)? else {
            return Ok(Answer::Ended(self.run.last_exit().unwrap_or(OpExit::Unsupported)));
        };
        if first && self.seen.insert(violation.signature) {
            let (execution, seen) = (self.counts.programs + 1, RunRecord::of(self.target));
            let found = Found { program: program.clone(), violation, execution, seen };
            let kept = campaign::keep(self.name, self.target, &found, setting)?;
            kept.save(setting.store)?;
            self.findings.push(kept.summary);
            self.counts.findings += 1;
        }
        Ok(Answer::Cut)
    }

    fn table(&self, args: &ExhaustArgs, scope: &Scope, ops: usize, explored: Explored, seconds: f64) -> String {
        let mut out = String::new();
        let Explored { all, states } = explored;
        let Counts { programs, unfolded, .. } = self.counts;
        let sequences: f64 = (1..=ops as i32).map(|ops| (scope.alphabet().len() as f64).powi(ops)).sum();
        let what = if all { "every program" } else { "stopped before every program" };
        let whole = if all { "the whole scope" } else { "of a scope that was not gone through" };
        let per_second = programs as f64 / seconds.max(0.001);
        let _ = write!(
            out,
            "{}: {what} of up to {} ops was run: {}\n  \
             {programs:>14} programs run\n  \
             {unfolded:>14} programs they stand for, {whole}: the others differ from one of them in names only\n  \
             {states:>14} states of the model they go on from, each by every op that it accepts\n  \
             {sequences:>14.3e} sequences of ops there are; in the rest an op would be skipped\n  \
             {:>14} ops judged\n  \
             {seconds:>14.1} seconds, {per_second:.0} programs/s\n",
            self.name,
            ops,
            said(scope),
            self.run.counts().judged
        );
        for finding in &self.findings {
            out.push_str(&finding_lines(self.name, &args.out, finding));
        }
        if self.findings.is_empty() {
            out.push_str("\nno oracle objects\n");
        }
        out
    }
}
