//! A campaign on one target: run the engine until its budget is spent, and turn what it finds into findings on disk.

pub mod check;
pub mod coverage;
pub mod digest;
pub mod finding;
pub mod input;
pub mod known;
pub mod store;
pub mod summary;

use crate::engine::{Budget, Engine, Found};
use crate::target::{RunRecord, Target, TargetError};
use crate::terminal::progress::{Left, Progress, Status};
use digest::Digest;
use finding::{Confirmed, Finding, KnownText, Metadata};
use gpa_model::minimize::minimize;
use gpa_model::{Program, text};
use gpa_oracles::{Lockstep, Violation};
use known::Known;
use std::fmt;
use std::time::Instant;
use store::{Store, StoreError};
use summary::{FindingSummary, Ops, TargetSummary, TargetTiming};

/// What campaigns on all targets share.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// Everything but the length follows from it.
    pub seed: u64,
    /// Which of several campaigns at once on a target this is, from 0.
    pub job: u8,
    /// vCPUs of every VM; open, if it is as it comes.
    pub vcpus: Option<u8>,
    /// Where findings go.
    pub store: &'a Store,
    /// Defects that are no news.
    pub known: &'a [Known],
}

impl Setting<'_> {
    /// What a campaign on `target` is called: by the target, and of several at once by their numbers, too.
    pub fn label(&self, target: &str) -> String {
        if self.job == 0 { target.to_owned() } else { format!("{target}#{}", u32::from(self.job) + 1) }
    }
}

/// Why a campaign ended before its time.
#[derive(Debug)]
pub enum CampaignError {
    /// The target failed.
    Target(TargetError),
    /// A finding could not be written.
    Store(StoreError),
}

impl fmt::Display for CampaignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CampaignError {}

impl From<TargetError> for CampaignError {
    fn from(error: TargetError) -> Self {
        Self::Target(error)
    }
}

impl From<StoreError> for CampaignError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Fuzz `target`, which is called `name`, judged by `run`.
///
/// # Errors
/// A [`CampaignError`]; findings made before it are on disk.
pub fn run(
    name: &str,
    target: &mut dyn Target,
    run: Lockstep,
    budget: Budget<'_>,
    setting: Setting<'_>,
) -> Result<(TargetSummary, TargetTiming), CampaignError> {
    let start = Instant::now();
    // Of several at once the first says how far it is: there is one line.
    let mut progress = (setting.job == 0).then(|| Progress::new(name, left(&budget)));
    let mut engine = Engine::new(target, run, setting.seed, budget)?.with_vcpus(setting.vcpus);
    let mut findings = Vec::new();
    while !engine.is_done() {
        engine.round()?;
        for found in engine.take_found() {
            findings.push(keep(name, engine.target(), &found, setting)?);
        }
        if let Some(progress) = &mut progress {
            progress.tick(|| status(&engine, findings.len()));
        }
    }
    if let Some(progress) = progress {
        progress.finish(&status(&engine, findings.len()));
    }
    let (executions, ops) = (engine.executions(), engine.run().counts().judged);
    let timing = TargetTiming::new(start.elapsed().as_secs_f64(), executions, ops, engine.target());
    Ok((summarize(setting.label(name), &engine, findings), timing))
}

/// What the progress line says is left of `budget`.
pub(crate) fn left(budget: &Budget<'_>) -> Left {
    match (budget.runs, budget.deadline) {
        (Some(runs), _) => Left::Runs(runs),
        (None, Some(deadline)) => Left::Until(deadline),
        (None, None) => Left::Runs(u64::MAX),
    }
}

/// How far `engine` has come, with so many `findings`.
pub(crate) fn status(engine: &Engine<'_>, findings: usize) -> Status {
    Status {
        executions: engine.executions(),
        ops: engine.run().counts().judged,
        corpus: engine.corpus_len(),
        cells: engine.cell_count(),
        findings,
    }
}

fn summarize(target: String, engine: &Engine<'_>, findings: Vec<FindingSummary>) -> TargetSummary {
    let (mut corpus, mut cells) = (Digest::default(), Digest::default());
    engine.each_corpus_program(|program| corpus.add(text::print(program).as_bytes()));
    engine.cells().for_each(|cell| cells.add(&cell.to_le_bytes()));
    TargetSummary {
        target,
        note: None,
        executions: engine.executions(),
        ops: Ops::from(engine.run().counts()),
        corpus: engine.corpus_len(),
        corpus_digest: corpus.to_string(),
        cells: engine.cell_count(),
        cells_digest: cells.to_string(),
        checks: check::checks(engine.run()),
        findings,
    }
}

/// Minimise what was found, write it down, and say what it is.
///
/// # Errors
/// A [`CampaignError`] if the target fails, or the finding cannot be written.
pub fn keep(
    name: &str,
    target: &mut dyn Target,
    found: &Found,
    setting: Setting<'_>,
) -> Result<FindingSummary, CampaignError> {
    // A run of its own: what minimising judges is not what the campaign judged.
    let mut run = Lockstep::default();
    let smaller = shrink(target, &mut run, found)?;
    let signature = &found.violation.signature;
    let mut minimized = smaller.program;
    minimized.comment = vec![one_line(&format!("{name}: {signature}")), one_line(&smaller.why)];
    let (mut report, again) = target.report(&mut run, &minimized, name)?;
    if again.is_none_or(|again| again.signature != *signature) {
        report.push_str(&format!("\nwhen it was found:\n{}\n", found.violation));
    }
    let folder = Store::folder(&setting.label(name), signature);
    let minimized_file = setting.store.out().join(&folder).join(finding::MINIMIZED_FILE);
    let replay = replay_line(&minimized_file.display().to_string(), name);
    let known = setting.known.iter().find(|known| known.matches(name, signature)).map(KnownText::from);
    let mut program = found.program.clone();
    program.comment = vec![one_line(&format!("{name}: {}", found.violation))];
    let metadata = Metadata {
        schema_version: finding::SCHEMA_VERSION,
        gpafuzz: env!("CARGO_PKG_VERSION").into(),
        target: name.into(),
        signature: signature.into(),
        why: smaller.why,
        known: known.clone(),
        seed: setting.seed,
        execution: found.execution,
        reproduces: smaller.reproduces,
        confirmed: smaller.confirmed,
        ops_before: program.ops.len(),
        ops_after: minimized.ops.len(),
        minimize_executions: smaller.executions,
        replay: replay.clone(),
    };
    let (ops_before, ops_after) = (program.ops.len(), minimized.ops.len());
    let seen = if smaller.reproduces { RunRecord::default() } else { found.seen.clone() };
    let finding = Finding { program, minimized, report, seen, metadata };
    setting.store.save(&folder, &finding)?;
    Ok(FindingSummary {
        signature: signature.into(),
        known,
        execution: found.execution,
        ops_before,
        ops_after,
        reproduces: smaller.reproduces,
        confirmed: smaller.confirmed,
        seen: finding.seen_files().map(|(name, _)| name.to_owned()).collect(),
        folder: folder.display().to_string(),
        replay,
    })
}

/// What [`shrink`] made of a program.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The smallest program that was seen to show the same.
    pub program: Program,
    /// What the oracle says about it.
    pub why: String,
    /// Whether it showed the same whenever it was run once more.
    pub reproduces: bool,
    /// In how many of how many further runs, if it took more than one to tell.
    pub confirmed: Option<Confirmed>,
    /// How many programs were run.
    pub executions: usize,
}

/// Minimise the program that was `found` as long as `target` breaks the same law in the same way: the same signature.
/// For a target that answers from a record, or that did not survive the program, it stays as it is.
///
/// # Errors
/// If the target fails.
pub fn shrink(target: &mut dyn Target, run: &mut Lockstep, found: &Found) -> Result<Shrunk, TargetError> {
    let Found { program, violation, seen, .. } = found;
    if target.recorded().is_some() {
        // What is not in the record cannot be asked for, and what is in it does not change.
        let (program, why) = (program.clone(), violation.why.clone());
        return Ok(Shrunk { program, why, reproduces: true, confirmed: None, executions: 0 });
    }
    let same = |violation: &Violation, other: &Option<Violation>| {
        other.as_ref().is_some_and(|other| other.signature == violation.signature)
    };
    let mut failed = None;
    if !seen.survived {
        let again = target.judge(run, program)?;
        let (program, why) = (program.clone(), violation.why.clone());
        return Ok(Shrunk { program, why, reproduces: same(violation, &again), confirmed: None, executions: 0 });
    }
    let smaller = minimize(program, |candidate| match target.judge(run, candidate) {
        Ok(other) => same(violation, &other),
        Err(error) => {
            failed = Some(error);
            false
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let (mut why, mut shown, runs) = (None, 0, target.confirmations());
    for _ in 0..runs {
        let again = target.judge(run, &smaller.program)?.filter(|again| again.signature == violation.signature);
        shown += u32::from(again.is_some());
        why = why.or(again.map(|again| again.why));
    }
    Ok(Shrunk {
        program: smaller.program,
        why: why.unwrap_or_else(|| violation.why.clone()),
        reproduces: shown == runs,
        confirmed: (runs > 1).then_some(Confirmed { shown, runs }),
        executions: smaller.executions,
    })
}

/// The line that shows a finding again.
pub fn replay_line(path: &str, target: &str) -> String {
    format!("cargo run --release -- replay {} --target {target}", quoted(path))
}

/// `path` as a shell reads it.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@%+=,".contains(c);
    if !path.is_empty() && path.chars().all(plain) { path.into() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

/// `text` as one line of a comment.
fn one_line(text: &str) -> String {
    const LENGTH: usize = 200;
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let clean = words.chars().filter(|c| !c.is_control());
    clean.take(LENGTH).collect()
}
