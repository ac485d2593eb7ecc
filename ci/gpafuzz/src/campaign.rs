//! A campaign on one target: jobs run the programs of a seed until the budget is spent, and each finding is minimised and kept.

pub mod check;
pub mod checkpoint;
pub mod course;
pub mod coverage;
pub mod digest;
pub mod finding;
pub mod input;
pub mod known;
pub mod store;
pub mod summary;

use crate::engine::Found;
use crate::target::{RunRecord, Target, TargetError};
use finding::{Confirmed, Finding, KnownText, Metadata};
use gpa_model::Program;
use gpa_model::minimize::minimize;
use gpa_oracles::{Lockstep, Violation};
use known::Known;
use std::fmt;
use std::path::PathBuf;
use store::{Store, StoreError};
use summary::FindingSummary;

/// What campaigns on all targets share.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// Everything but the length follows from it.
    pub seed: u64,
    /// How many jobs share the programs.
    pub jobs: u8,
    /// Whether a campaign goes on where one with the same seed in the same folder has stopped.
    pub resume: bool,
    /// vCPUs of every VM; open, if it is as it comes.
    pub vcpus: Option<u8>,
    /// Where findings go.
    pub store: &'a Store,
    /// Defects that are no news.
    pub known: &'a [Known],
}

/// Why a campaign ended before its time.
#[derive(Debug)]
pub enum CampaignError {
    /// The target failed.
    Target(TargetError),
    /// The folder could not be used.
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

/// A finding that is minimised and described, and still has to be written.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The folder that it belongs in, below [`Store::out`].
    pub folder: PathBuf,
    /// What is written there.
    pub finding: Finding,
    /// What the summary says of it.
    pub summary: FindingSummary,
}

impl Kept {
    /// Write it. When this returns it is on disk.
    ///
    /// # Errors
    /// A [`StoreError`]; the finding can be written again later.
    pub fn save(&self, store: &Store) -> Result<(), StoreError> {
        store.save(&self.folder, &self.finding)
    }
}

/// Minimise what was found on `target`, and describe it.
///
/// # Errors
/// If the target fails.
pub fn keep(name: &str, target: &mut dyn Target, found: &Found, setting: Setting<'_>) -> Result<Kept, TargetError> {
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
    let folder = Store::folder(name, signature);
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
    let summary = FindingSummary {
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
    };
    Ok(Kept { folder, finding, summary })
}

/// The result of [`shrink`].
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The smallest program with the same signature.
    pub program: Program,
    /// What the oracle says about it.
    pub why: String,
    /// Whether it showed the signature in every further run.
    pub reproduces: bool,
    /// In how many of how many further runs, if it took more than one to tell.
    pub confirmed: Option<Confirmed>,
    /// How many programs were run.
    pub executions: usize,
}

/// Minimise the program that was `found` as long as `target` shows the same signature.
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

/// The command line that replays a finding.
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
