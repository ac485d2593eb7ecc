//! How far a campaign has come, on disk: what a killed, stopped or finished campaign goes on from.
//!
//! There is one file for each target and seed, `OUT/campaigns/TARGET.SEED.json`. It is written beside its place and renamed, so a reader
//! finds the old one or the new one. It speaks only of programs that were judged and of findings that are on disk.

use super::check::Check;
use super::store::{self, StoreError};
use super::summary::{FindingSummary, Ops};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The version of [`Checkpoint`]; larger when a field changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;
/// The folder of checkpoints, below the one that findings are written to.
pub const CHECKPOINTS: &str = "campaigns";

/// What a campaign has done to the programs whose number is below [`Checkpoint::next`], and to no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Digest of the first programs: another version of gpafuzz, or of the target, may be given others.
    pub programs: String,
    /// The target.
    pub target: String,
    /// The seed.
    pub seed: u64,
    /// The number of the first program that is still to be run.
    pub next: u64,
    /// What was counted.
    pub totals: Totals,
    /// What was found, by execution.
    pub findings: Vec<FindingSummary>,
}

/// What a campaign counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Programs run.
    pub executions: u64,
    /// What became of their ops.
    pub ops: Ops,
    /// How often each clause was at stake.
    pub checks: Vec<Check>,
    /// Feature cells reached, ascending.
    pub cells: Vec<u16>,
    /// Programs in the corpora.
    pub corpus: usize,
}

impl Totals {
    /// Add what another has counted.
    pub fn add(&mut self, other: &Self) {
        self.executions += other.executions;
        self.ops.judged += other.ops.judged;
        self.ops.skipped += other.ops.skipped;
        self.ops.unsupported += other.ops.unsupported;
        for check in &other.checks {
            match self.checks.iter_mut().find(|mine| (&mine.oracle, &mine.clause) == (&check.oracle, &check.clause)) {
                Some(mine) => {
                    mine.checked += check.checked;
                    mine.skipped += check.skipped;
                    mine.unsupported += check.unsupported;
                }
                None => self.checks.push(check.clone()),
            }
        }
        self.cells.extend(&other.cells);
        self.cells.sort_unstable();
        self.cells.dedup();
        self.corpus += other.corpus;
    }
}

/// Where the checkpoint of a campaign on `target` lies.
pub fn path(out: &Path, target: &str, seed: u64) -> PathBuf {
    out.join(CHECKPOINTS).join(format!("{}.{seed}.json", store::file_name(target)))
}

/// What can be gone on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// There is nothing.
    Nothing,
    /// This.
    From(Box<Checkpoint>),
    /// There is a checkpoint that does not fit, for this reason.
    Unfit(String),
}

/// The checkpoint at `path` of a campaign like `fresh`, which has not run anything.
///
/// # Errors
/// A [`StoreError`] if there is one that cannot be read, or that a newer gpafuzz has written.
pub fn load(path: &Path, fresh: &Checkpoint) -> Result<Resumed, StoreError> {
    let unreadable = |error| StoreError::Unreadable(path.to_owned(), error);
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Resumed::Nothing),
        Err(error) => return Err(unreadable(error.to_string())),
    };
    #[derive(Deserialize)]
    struct Version {
        schema_version: u32,
    }
    let version: Version = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    if version.schema_version > SCHEMA_VERSION {
        return Err(unreadable(format!(
            "expected schema_version {SCHEMA_VERSION}, found {}: a newer gpafuzz has written it",
            version.schema_version
        )));
    }
    let found: Checkpoint = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    let like = |what: &str, wanted: String, found: String| {
        (wanted != found).then(|| format!("expected {what} {wanted}, found {found}"))
    };
    let unfit = like("target", fresh.target.clone(), found.target.clone())
        .or_else(|| like("programs with digest", fresh.programs.clone(), found.programs.clone()));
    Ok(unfit.map_or_else(|| Resumed::From(Box::new(found)), Resumed::Unfit))
}

/// Write `checkpoint` to `path`. When this returns it is on disk.
///
/// # Errors
/// [`StoreError::Unwritable`]; what was there before is still there.
pub fn save(path: &Path, checkpoint: &Checkpoint) -> Result<(), StoreError> {
    let unwritable = |error| StoreError::Unwritable(path.to_owned(), error);
    let text = serde_json::to_string(checkpoint).map_err(|error| unwritable(io::Error::other(error)))?;
    store::write_atomically(path, text.as_bytes()).map_err(unwritable)
}
