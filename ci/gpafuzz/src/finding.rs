//! A finding on disk: a folder with the program, a minimised one, the report, and what is needed to find it again.
//!
//! ```text
//! OUT/findings/TARGET/SIGNATURE/program.prog      as the campaign found it
//!                               minimized.prog    the smallest program found that shows the same
//!                               report.txt        what happens, op by op
//!                               finding.json      [`Metadata`]
//!                               found.trace       what a real KVM did when it was found, and
//!                               found.log         what its kernel had said, if it did not show again each time
//! ```
//!
//! A folder appears whole or not at all: it is written beside its place, brought to disk, and renamed. There is one folder
//! a signature; finding the same again replaces it.

use crate::known::Known;
use crate::target::RunRecord;
use gpa_model::{Program, text};
use gpa_oracles::Signature;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The program as it was found.
pub const PROGRAM_FILE: &str = "program.prog";
/// The minimised program.
pub const MINIMIZED_FILE: &str = "minimized.prog";
/// The report of the minimised program.
pub const REPORT_FILE: &str = "report.txt";
/// The metadata.
pub const FINDING_FILE: &str = "finding.json";
/// The trace of the time when it was found.
pub const FOUND_TRACE_FILE: &str = "found.trace";
/// The kernel's log of that time.
pub const FOUND_LOG_FILE: &str = "found.log";
/// The version of [`Metadata`]; larger when a field changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;

const LOCK_FILE: &str = ".lock";
const FINDINGS: &str = "findings";

/// What `finding.json` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The version of gpafuzz that found it.
    pub gpafuzz: String,
    /// The target it was found on.
    pub target: String,
    /// What makes it the same finding as another.
    pub signature: SignatureText,
    /// What the oracle said about the minimised program.
    pub why: String,
    /// The known defect it shows, if it is known.
    pub known: Option<KnownText>,
    /// The seed of the campaign.
    pub seed: u64,
    /// Which execution of the campaign it was, from 1.
    pub execution: u64,
    /// Whether the minimised program showed it again whenever it was run once more.
    pub reproduces: bool,
    /// In how many of how many further runs it showed, if it took more than one to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<Confirmed>,
    /// Ops of the program as found.
    pub ops_before: usize,
    /// Ops of the minimised program.
    pub ops_after: usize,
    /// How many programs minimising it took.
    pub minimize_executions: usize,
    /// The line that shows it again.
    pub replay: String,
}

/// How reliably a finding shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Runs in which it showed.
    pub shown: u32,
    /// All further runs of the minimised program.
    pub runs: u32,
}

impl Confirmed {
    /// What a person is told of a finding that showed so, or of one for which a single further run was enough.
    pub fn words(confirmed: Option<Self>, reproduces: bool) -> String {
        match confirmed {
            Some(Self { shown, runs }) if shown == runs => format!("; stable: it showed in all of {runs} runs"),
            Some(Self { shown, runs }) => format!("; not stable: it showed in {shown} of {runs} runs"),
            None if reproduces => String::new(),
            None => "; it did not show again".into(),
        }
    }
}

/// A [`Signature`] in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureText {
    /// The oracle.
    pub oracle: String,
    /// The clause of its law.
    pub clause: String,
    /// The kind of op at which it objected.
    pub op: String,
    /// `base`, `alias` or `none`.
    pub alias: String,
    /// What stands behind the address.
    pub slot: String,
}

impl From<&Signature> for SignatureText {
    fn from(signature: &Signature) -> Self {
        let Signature { oracle, clause, op, alias, slot } = *signature;
        let [oracle, clause, op, alias, slot] = [oracle, clause, op, alias, slot].map(str::to_owned);
        Self { oracle, clause, op, alias, slot }
    }
}

/// A known defect in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownText {
    /// The gap in the design.
    pub gap: String,
    /// What is wrong.
    pub reason: String,
}

impl From<&Known> for KnownText {
    fn from(known: &Known) -> Self {
        Self { gap: known.gap.clone(), reason: known.reason.clone() }
    }
}

/// A finding, ready to be written.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The program as found.
    pub program: Program,
    /// The minimised program.
    pub minimized: Program,
    /// The report of it.
    pub report: String,
    /// What was seen when it was found, if that is to be kept.
    pub seen: RunRecord,
    /// The rest.
    pub metadata: Metadata,
}

impl Finding {
    /// The files of what was seen when it was found.
    pub fn seen_files(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let files = [(FOUND_TRACE_FILE, &self.seen.trace), (FOUND_LOG_FILE, &self.seen.log)];
        files.into_iter().filter_map(|(name, text)| Some((name, text.as_deref()?)))
    }
}

/// Why findings cannot be written.
#[derive(Debug)]
pub enum StoreError {
    /// The folder cannot be made or written.
    Unwritable(PathBuf, io::Error),
    /// Another campaign writes there.
    Busy(PathBuf),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unwritable(path, error) => {
                write!(f, "{}: cannot be written: {error}; name another folder with --out DIR", path.display())
            }
            Self::Busy(path) => {
                write!(f, "{}: another campaign writes there; name another folder with --out DIR", path.display())
            }
        }
    }
}

impl std::error::Error for StoreError {}

/// A folder that findings are written to, by one campaign at a time.
#[derive(Debug)]
pub struct Store {
    out: PathBuf,
    _lock: File,
}

impl Store {
    /// Make `out` a place for findings, and clear away what an interrupted campaign has left unfinished.
    ///
    /// # Errors
    /// A [`StoreError`] if `out` cannot be written, or somebody else is writing there.
    pub fn open(out: &Path) -> Result<Self, StoreError> {
        let unwritable = |path: &Path| {
            let path = path.to_owned();
            move |error| StoreError::Unwritable(path, error)
        };
        let findings = out.join(FINDINGS);
        fs::create_dir_all(&findings).map_err(unwritable(&findings))?;
        let path = out.join(LOCK_FILE);
        let lock = File::create(&path).map_err(unwritable(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Busy(out.to_owned())),
            Err(TryLockError::Error(error)) => return Err(StoreError::Unwritable(path, error)),
        }
        for target in fs::read_dir(&findings).map_err(unwritable(&findings))?.flatten() {
            tidy(&target.path()).map_err(unwritable(&target.path()))?;
        }
        Ok(Self { out: out.to_owned(), _lock: lock })
    }

    /// Where a finding of `signature` by the campaign called `target` belongs, below [`Store::out`].
    pub fn folder(target: &str, signature: &Signature) -> PathBuf {
        let name = signature.to_string().replace('/', "-");
        Path::new(FINDINGS).join(target.replace([':', '/', '#'], "-")).join(name)
    }

    /// The folder that holds everything.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// Write `finding` to `folder`, which is below [`Store::out`]. When this returns it is on disk.
    ///
    /// # Errors
    /// [`StoreError::Unwritable`].
    pub fn save(&self, folder: &Path, finding: &Finding) -> Result<(), StoreError> {
        let folder = self.out.join(folder);
        save(&folder, finding).map_err(|error| StoreError::Unwritable(folder, error))
    }
}

/// The name of what stands beside `folder` while it is replaced.
fn beside(folder: &Path, what: &str) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    folder.with_file_name(format!(".{name}.{what}"))
}

fn save(folder: &Path, finding: &Finding) -> io::Result<()> {
    let (new, old) = (beside(folder, "new"), beside(folder, "old"));
    let parent = folder.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    remove(&new)?;
    fs::create_dir(&new)?;
    let metadata = serde_json::to_string_pretty(&finding.metadata)? + "\n";
    let (program, minimized) = (text::print(&finding.program), text::print(&finding.minimized));
    let files = [
        (PROGRAM_FILE, program.as_str()),
        (MINIMIZED_FILE, &minimized),
        (REPORT_FILE, &finding.report),
        (FINDING_FILE, &metadata),
    ];
    for (name, text) in files.into_iter().chain(finding.seen_files()) {
        let mut file = File::create(new.join(name))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
    }
    File::open(&new)?.sync_all()?;
    if folder.exists() {
        // A folder cannot be renamed over a full one. Should this end here, `tidy` puts the old one back.
        remove(&old)?;
        fs::rename(folder, &old)?;
    }
    fs::rename(&new, folder)?;
    File::open(parent)?.sync_all()?;
    remove(&old)
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Finish or undo what was under way in `target` when a campaign was killed.
fn tidy(target: &Path) -> io::Result<()> {
    if !target.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(target)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(name) = name.strip_prefix('.') else { continue };
        if name.ends_with(".new") {
            remove(&path)?;
        } else if let Some(name) = name.strip_suffix(".old") {
            let folder = path.with_file_name(name);
            if folder.exists() { remove(&path)? } else { fs::rename(&path, &folder)? }
        }
    }
    Ok(())
}
