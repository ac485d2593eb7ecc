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

use super::known::Known;
use crate::target::RunRecord;
use gpa_model::Program;
use gpa_oracles::Signature;
use serde::{Deserialize, Serialize};
use std::fmt;

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

impl fmt::Display for SignatureText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}/{}", self.oracle, self.clause, self.op, self.alias, self.slot)
    }
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
