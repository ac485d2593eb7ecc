//! The course of a campaign: jobs take programs by their numbers, meet after each leg, and one of them writes a checkpoint.
//!
//! What a program is follows from the seed and its number, so it does not matter which job runs it: the same `--seed` and `--runs` give
//! the same summary with any number of jobs, and in one go or resumed. Only a target that shows which code it executes has a corpus,
//! and with it a course that depends on the order.

use super::checkpoint::{self, Checkpoint, Resumed, Totals};
use super::digest::Digest;
use super::finding::{self, Finding, SignatureText};
use super::input::{self, Input};
use super::store::StoreError;
use super::summary::{Evidence, FindingSummary, Ops, TargetSummary, TargetTiming};
use super::{CampaignError, Kept, Setting, check, keep, replay_line};
use crate::engine::{self, Budget, Engine, Found};
use crate::target::{Opened, Target, TargetError};
use crate::terminal::note;
use crate::terminal::progress::{Left, Progress, Status};
use gpa_model::text;
use gpa_oracles::Lockstep;
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Programs that a job takes at once, and finishes whatever happens.
const CHUNK: u64 = 16;
/// Programs of the first leg.
const FIRST_LEG: u64 = 1024;
/// How long a leg is to take: so much work at most is lost when the process is killed.
const LEG: Duration = Duration::from_secs(2);

/// Run a campaign on the target called `name`, which `opened` holds; `open` opens it for further jobs, and `judge` makes the run that
/// judges in each.
///
/// # Errors
/// A [`CampaignError`] if the folder cannot be used. A target that fails ends the campaign, and [`Outcome::failed`] says why.
pub fn run(
    name: &str,
    opened: Opened,
    open: &(dyn Fn() -> Result<Opened, TargetError> + Sync),
    judge: &(dyn Fn() -> Lockstep + Sync),
    budget: Budget<'_>,
    setting: Setting<'_>,
) -> Result<Outcome, CampaignError> {
    let course = Course::new(name, first_programs(opened.target.as_ref(), setting), budget, setting)?;
    let start = Instant::now();
    let evidence = thread::scope(|scope| {
        let course = &course;
        // A target belongs to the thread that opened it.
        let other = |job| scope.spawn(move || course.job(job, open(), judge()));
        let others: Vec<_> = (1..course.jobs).map(other).collect();
        let first = course.job(0, Ok(opened), judge());
        let others = others.into_iter().map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        others.fold(first, Evidence::and)
    });
    let mut board = course.board.into_inner().unwrap_or_else(PoisonError::into_inner);
    let summary = board.summary(name);
    let unsaved = std::mem::take(&mut board.unsaved).into_iter().map(|kept| kept.finding).collect();
    let (executions, ops) = (course.executions.into_inner(), course.ops.into_inner());
    let timing = TargetTiming::new(start.elapsed().as_secs_f64(), executions, ops, evidence);
    Ok(Outcome { summary, timing, unsaved, failed: board.failed.take() })
}

/// What a campaign came to.
#[derive(Debug)]
pub struct Outcome {
    /// What was done.
    pub summary: TargetSummary,
    /// How long it took.
    pub timing: TargetTiming,
    /// Findings that could not be written.
    pub unsaved: Vec<Finding>,
    /// What ended it before its time.
    pub failed: Option<CampaignError>,
}

/// What the jobs of a campaign share.
struct Course<'a> {
    name: &'a str,
    setting: Setting<'a>,
    budget: Budget<'a>,
    jobs: usize,
    checkpoint: PathBuf,
    /// The first program that no job has taken.
    next: AtomicU64,
    /// Where the leg ends.
    end: AtomicU64,
    /// How many programs it has.
    length: AtomicU64,
    /// A job has failed: no more programs are taken.
    failing: AtomicBool,
    /// Set at a meeting when nothing more is to be run, so that all jobs leave together.
    done: AtomicBool,
    meeting: Barrier,
    /// For the progress line: programs and ops of this process, and findings.
    executions: AtomicU64,
    ops: AtomicU64,
    found: AtomicUsize,
    board: Mutex<Board>,
}

/// What the jobs have brought together.
struct Board {
    fresh: Checkpoint,
    /// What was counted before this process.
    before: Totals,
    /// What each job has counted.
    jobs: Vec<Totals>,
    /// By signature: the first execution that showed it, and what is said of it once it is minimised.
    findings: BTreeMap<String, (u64, Option<FindingSummary>)>,
    /// Findings that could not be written so far.
    unsaved: Vec<Kept>,
    /// How many programs there are at all, if the target answers from a record.
    recorded: Option<u64>,
    leg_started: Instant,
    failed: Option<CampaignError>,
    /// Whether the last attempt to write failed; said once.
    complained: bool,
}

impl<'a> Course<'a> {
    fn new(name: &'a str, programs: String, budget: Budget<'a>, setting: Setting<'a>) -> Result<Self, CampaignError> {
        let path = checkpoint::path(setting.store.out(), name, setting.seed);
        let fresh = Checkpoint {
            schema_version: checkpoint::SCHEMA_VERSION,
            programs,
            target: name.to_owned(),
            seed: setting.seed,
            next: 0,
            totals: Totals::default(),
            findings: Vec::new(),
        };
        let resumed = if setting.resume { checkpoint::load(&path, &fresh)? } else { Resumed::Nothing };
        let from = match resumed {
            Resumed::Nothing => fresh.clone(),
            Resumed::From(found) => {
                note(&format!("{name}: goes on after {} programs ({})", found.next, path.display()));
                *found
            }
            Resumed::Unfit(why) => {
                note(&format!("{name}: begins anew: {why} ({})", path.display()));
                fresh.clone()
            }
        };
        let minimized = |folder: &str| setting.store.out().join(folder).join(finding::MINIMIZED_FILE);
        let known = |found: FindingSummary| {
            let replay = replay_line(&minimized(&found.folder).display().to_string(), name);
            (found.signature.to_string(), (found.execution, Some(FindingSummary { replay, ..found })))
        };
        let findings: BTreeMap<_, _> = from.findings.into_iter().map(known).collect();
        let jobs = usize::from(setting.jobs.max(1));
        let board = Board {
            fresh,
            before: from.totals,
            jobs: vec![Totals::default(); jobs],
            findings,
            unsaved: Vec::new(),
            recorded: None,
            leg_started: Instant::now(),
            failed: None,
            complained: false,
        };
        let course = Self {
            name,
            setting,
            budget,
            jobs,
            checkpoint: path,
            next: from.next.into(),
            end: from.next.into(),
            length: FIRST_LEG.into(),
            failing: false.into(),
            done: false.into(),
            meeting: Barrier::new(jobs),
            executions: 0.into(),
            ops: 0.into(),
            found: board.findings.len().into(),
            board: Mutex::new(board),
        };
        course.begin_leg(from.next);
        Ok(course)
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything one job does. A job that fails still meets the others, so that none of them waits for ever.
    fn job(&self, job: usize, opened: Result<Opened, TargetError>, run: Lockstep) -> Evidence {
        let mut opened = opened.map_err(|error| self.fail(error.into())).ok();
        let engine = opened.as_mut().map(|opened| {
            Engine::new(opened.target.as_mut(), run, self.setting.seed, self.budget)
                .map(|engine| engine.with_vcpus(self.setting.vcpus))
        });
        let mut engine = engine.and_then(|engine| engine.map_err(|error| self.fail(error.into())).ok());
        let mut progress = (job == 0).then(|| Progress::new(self.name, left(&self.budget)));
        if let (0, Some(engine)) = (job, &mut engine)
            && let Err(error) = self.replay_findings(engine.target())
        {
            self.fail(error);
        }
        while !self.done.load(Ordering::Acquire) {
            if let Some(engine) = &mut engine {
                let leg = catch_unwind(AssertUnwindSafe(|| self.leg(engine, progress.as_mut())));
                match leg {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => self.fail(error),
                    Err(_) => self.fail(TargetError::Failed("a job panicked; its message is above".into()).into()),
                }
                let mut board = self.board();
                board.jobs[job] = totals(engine);
                board.recorded = engine.recorded_len();
            }
            if self.meeting.wait().is_leader() {
                self.meet();
            }
            self.meeting.wait();
        }
        if let Some(progress) = progress {
            progress.finish(&self.status(engine.as_ref()));
        }
        engine.map_or_else(Evidence::default, |mut engine| Evidence::of(engine.target()))
    }

    /// Run what was found before once more: a target that was mended since does not show it any longer.
    fn replay_findings(&self, target: &mut dyn Target) -> Result<(), CampaignError> {
        let findings = self.board().findings();
        for finding in findings {
            let file = self.setting.store.out().join(&finding.folder).join(finding::MINIMIZED_FILE);
            let Ok(Input { program, .. }) = input::read(&file) else {
                note(&format!("{}: cannot be read; what it showed is looked for again", file.display()));
                self.board().findings.remove(&finding.signature.to_string());
                continue;
            };
            let mut shows = false;
            for _ in 0..target.confirmations() {
                let again = target.judge(&mut Lockstep::default(), &program)?;
                shows |= again.is_some_and(|again| SignatureText::from(&again.signature) == finding.signature);
            }
            // What never showed again is kept as it was found.
            if !shows && finding.reproduces {
                note(&format!("{}: {} shows no longer: {}", self.name, finding.signature, file.display()));
                self.board().findings.remove(&finding.signature.to_string());
            }
        }
        Ok(())
    }

    /// Run programs of this leg until none is left.
    fn leg(&self, engine: &mut Engine<'_>, mut progress: Option<&mut Progress<'_>>) -> Result<(), CampaignError> {
        while let Some(numbers) = self.take(engine) {
            let before = (engine.executions(), engine.run().counts().judged);
            engine.programs(numbers)?;
            engine.mutants()?;
            self.executions.fetch_add(engine.executions() - before.0, Ordering::Relaxed);
            self.ops.fetch_add(engine.run().counts().judged - before.1, Ordering::Relaxed);
            for found in engine.take_found() {
                self.note_found(engine.target(), &found)?;
            }
            if let Some(progress) = &mut progress {
                progress.tick(|| self.status(Some(engine)));
            }
        }
        Ok(())
    }

    /// The next programs of this leg, if there are any and the budget allows them.
    fn take(&self, engine: &Engine<'_>) -> Option<Range<u64>> {
        // With a corpus mutants count, too; without one the leg ends where the budget does.
        let executions = if engine.corpus_len() > 0 { engine.executions() } else { 0 };
        if self.budget.is_spent(executions) || self.failing.load(Ordering::Acquire) {
            return None;
        }
        let end = self.end.load(Ordering::Acquire);
        let take = |next: u64| (next < end).then(|| (next + CHUNK).min(end));
        let start = self.next.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).ok()?;
        Some(start..(start + CHUNK).min(end))
    }

    /// All jobs have finished what they took: write down how far the campaign is, and say where the next leg ends.
    fn meet(&self) {
        let next = self.next.load(Ordering::Acquire);
        let mut board = self.board();
        board.save(self, next);
        let totals = board.totals();
        let spent = self.budget.is_spent(if totals.corpus > 0 { totals.executions } else { next });
        let over = spent || board.failed.is_some() || board.recorded.is_some_and(|len| next >= len);
        let (took, length) = (board.leg_started.elapsed(), self.length.load(Ordering::Relaxed));
        board.leg_started = Instant::now();
        drop(board);
        let wanted = length as f64 * LEG.as_secs_f64() / took.as_secs_f64().max(0.001);
        self.length.store((wanted as u64).clamp(CHUNK, length.saturating_mul(4)), Ordering::Relaxed);
        self.begin_leg(next);
        self.done.store(over, Ordering::Release);
    }

    /// The programs from `next` on, up to the end of a leg or of the budget, can be taken.
    fn begin_leg(&self, next: u64) {
        let end = next.saturating_add(self.length.load(Ordering::Relaxed));
        self.end.store(self.budget.runs.map_or(end, |runs| end.min(runs.max(next))), Ordering::Release);
    }

    /// Minimise and write what was found, unless an earlier program has shown the same.
    fn note_found(&self, target: &mut dyn Target, found: &Found) -> Result<(), CampaignError> {
        let signature = found.violation.signature.to_string();
        if self.board().findings.get(&signature).is_some_and(|(first, _)| *first <= found.execution) {
            return Ok(());
        }
        let kept = keep(self.name, target, found, self.setting)?;
        let mut board = self.board();
        let entry = board.findings.entry(signature).or_insert((u64::MAX, None));
        if found.execution < entry.0 {
            *entry = (found.execution, Some(kept.summary.clone()));
            self.found.store(board.findings.len(), Ordering::Relaxed);
            board.unsaved.retain(|other| other.folder != kept.folder);
            board.unsaved.push(kept);
            board.save_findings(self);
        }
        Ok(())
    }

    fn fail(&self, error: CampaignError) {
        self.board().failed.get_or_insert(error);
        self.failing.store(true, Ordering::Release);
    }

    fn status(&self, engine: Option<&Engine<'_>>) -> Status {
        Status {
            executions: self.executions.load(Ordering::Relaxed),
            ops: self.ops.load(Ordering::Relaxed),
            corpus: engine.map_or(0, Engine::corpus_len),
            cells: engine.map_or(0, Engine::cell_count),
            findings: self.found.load(Ordering::Relaxed),
        }
    }
}

impl Board {
    /// What was counted so far, by this process and those before it.
    fn totals(&self) -> Totals {
        let mut totals = Totals { corpus: 0, ..self.before.clone() };
        self.jobs.iter().for_each(|job| totals.add(job));
        totals
    }

    /// The findings that are described, by execution.
    fn findings(&self) -> Vec<FindingSummary> {
        let mut findings: Vec<_> = self.findings.values().filter_map(|(_, summary)| summary.clone()).collect();
        findings.sort_by_key(|finding| finding.execution);
        findings
    }

    /// Write what is not on disk yet: findings first, since the checkpoint speaks of them.
    fn save(&mut self, course: &Course<'_>, next: u64) {
        self.save_findings(course);
        // After a failure some programs below `next` were not judged: the checkpoint before stays.
        if self.unsaved.is_empty() && self.failed.is_none() {
            let (totals, findings) = (self.totals(), self.findings());
            let saved =
                checkpoint::save(&course.checkpoint, &Checkpoint { next, totals, findings, ..self.fresh.clone() });
            self.note_unwritable(saved);
        }
    }

    fn save_findings(&mut self, course: &Course<'_>) {
        for kept in std::mem::take(&mut self.unsaved) {
            if let Err(error) = kept.save(course.setting.store) {
                self.unsaved.push(kept);
                self.note_unwritable(Err(error));
            }
        }
    }

    /// A disk may be full for a while: what cannot be written is kept and tried again after the next leg.
    fn note_unwritable(&mut self, saved: Result<(), StoreError>) {
        if let Err(error) = saved
            && !self.complained
        {
            self.complained = true;
            note(&format!("{error}; findings are kept in memory until they can be written"));
        }
    }

    fn summary(&self, target: &str) -> TargetSummary {
        let Totals { executions, ops, checks, cells, corpus } = self.totals();
        let mut digest = Digest::default();
        cells.iter().for_each(|cell| digest.add(&cell.to_le_bytes()));
        TargetSummary {
            target: target.to_owned(),
            note: None,
            executions,
            ops,
            corpus,
            cells: cells.len(),
            cells_digest: digest.to_string(),
            checks,
            findings: self.findings(),
        }
    }
}

/// What `engine` has counted.
fn totals(engine: &Engine<'_>) -> Totals {
    Totals {
        executions: engine.executions(),
        ops: Ops::from(engine.run().counts()),
        checks: check::checks(engine.run()),
        cells: engine.cells().collect(),
        corpus: engine.corpus_len(),
    }
}

/// Digest of the first programs of the campaign.
fn first_programs(target: &dyn Target, setting: Setting<'_>) -> String {
    let mut digest = Digest::default();
    match target.recorded() {
        Some(recorded) => recorded.iter().for_each(|program| digest.add(text::print(program).as_bytes())),
        None => {
            for program in engine::first_programs(target.profile(), setting.vcpus, setting.seed) {
                digest.add(text::print(&program).as_bytes());
            }
        }
    }
    digest.to_string()
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
