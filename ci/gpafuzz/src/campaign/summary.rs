//! The summary of a campaign: what was run, what was judged, what was found, as a table and as JSON.
//!
//! Two campaigns with the same seed and the same number of runs agree in [`Untimed`], and so in its digest: comparing two
//! campaigns is comparing two words.

use super::check::{Check, by_oracle};
use super::coverage::TargetCoverage;
use super::digest::Digest;
use super::finding::{Confirmed, KnownText, SignatureText};
use crate::target::Target;
use gpa_oracles::OpCounts;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// The version of [`Summary`] as JSON; larger when a field changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 2;

/// What a campaign did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The version of gpafuzz.
    pub gpafuzz: String,
    /// Where findings were written.
    pub out: String,
    /// Whether a signal ended the campaign before its budget was spent.
    pub interrupted: bool,
    /// What depends on neither the time nor the place.
    pub untimed: Untimed,
    /// For each finding, in order, the line that shows it again.
    pub replay: Vec<String>,
    /// What was reached on each target, in order, if it was counted (`--coverage`). Not part of [`Untimed`]: counting
    /// changes nothing, so neither does it change the digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Vec<TargetCoverage>>,
    /// What differs from campaign to campaign.
    pub timing: Timing,
}

/// The part of a [`Summary`] in which two campaigns agree that did the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Untimed {
    /// The seed everything was drawn from.
    pub seed: u64,
    /// What was done on each target, in order.
    pub targets: Vec<TargetSummary>,
    /// Digest of all the above.
    pub digest: String,
}

/// What a campaign did on one target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TargetSummary {
    /// The target.
    pub target: String,
    /// How the target came to be, if there was a choice: live or recorded.
    pub note: Option<String>,
    /// Programs run.
    pub executions: u64,
    /// What became of their ops.
    pub ops: Ops,
    /// Programs in the corpora at the end: those that executed a new block, where blocks can be seen.
    pub corpus: usize,
    /// Feature cells reached.
    pub cells: usize,
    /// Digest of which.
    pub cells_digest: String,
    /// How often each clause of each oracle was at stake.
    pub checks: Vec<Check>,
    /// What was found, in order.
    pub findings: Vec<FindingSummary>,
}

/// Ops by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ops {
    /// Carried out and judged.
    pub judged: u64,
    /// Skipped because they meant nothing in their state.
    pub skipped: u64,
    /// Skipped because the target cannot carry them out.
    pub unsupported: u64,
}

impl From<OpCounts> for Ops {
    fn from(OpCounts { judged, skipped, unsupported }: OpCounts) -> Self {
        Self { judged, skipped, unsupported }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingSummary {
    /// What makes it the same as another.
    pub signature: SignatureText,
    /// The known defect it shows, if it is known.
    pub known: Option<KnownText>,
    /// Which execution it was, from 1.
    pub execution: u64,
    /// Ops of the program as found.
    pub ops_before: usize,
    /// Ops of the minimised program.
    pub ops_after: usize,
    /// Whether the minimised program showed it again whenever it was run once more.
    pub reproduces: bool,
    /// In how many of how many further runs it showed, if it took more than one to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<Confirmed>,
    /// Files there of what was seen when it was found, if it did not show again each time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<String>,
    /// The folder it was written to, below [`Summary::out`].
    pub folder: String,
    /// The line that shows it again; [`Summary::replay`] has those of all findings.
    #[serde(skip)]
    pub replay: String,
}

/// How long it took.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Timing {
    /// Seconds, all in all.
    pub seconds: f64,
    /// For each target, in the order of [`Untimed::targets`].
    pub targets: Vec<TargetTiming>,
}

/// How long it took on one target.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TargetTiming {
    /// Seconds spent, minimising included.
    pub seconds: f64,
    /// Programs a second.
    pub executions_per_second: f64,
    /// Judged ops a second.
    pub ops_per_second: f64,
    /// Guest accesses a second, where a real guest carries them out.
    pub accesses_per_second: Option<f64>,
    /// Evidence that the accesses ran natively.
    pub evidence: Option<String>,
}

impl TargetTiming {
    /// The rates of `executions` and `ops` in `seconds`, and of the accesses of a real guest.
    pub fn new(seconds: f64, executions: u64, ops: u64, evidence: Evidence) -> Self {
        let rate = |count: u64| if seconds > 0.0 { (count as f64 / seconds).round() } else { 0.0 };
        Self {
            seconds,
            executions_per_second: rate(executions),
            ops_per_second: rate(ops),
            accesses_per_second: evidence.accesses.map(rate),
            evidence: evidence.words,
        }
    }
}

/// What targets tell of how guest accesses were carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Guest accesses carried out by a real guest.
    pub accesses: Option<u64>,
    /// What is known about how.
    pub words: Option<String>,
}

impl Evidence {
    /// What `target` tells.
    pub fn of(target: &dyn Target) -> Self {
        Self { accesses: target.accesses(), words: target.evidence() }
    }

    /// What several targets tell: the accesses of all, and the words of the first.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let accesses =
            self.accesses.or(other.accesses).map(|_| self.accesses.unwrap_or(0) + other.accesses.unwrap_or(0));
        Self { accesses, words: self.words.or(other.words) }
    }
}

impl Summary {
    /// The summary of what was done on `targets`, with its digest.
    ///
    /// # Errors
    /// If it cannot be turned into JSON, which it always can.
    pub fn new(seed: u64, out: &Path, targets: Vec<TargetSummary>, timing: Timing) -> serde_json::Result<Self> {
        let mut digest = Digest::default();
        digest.add(&seed.to_le_bytes());
        digest.add(&serde_json::to_vec(&targets)?);
        let findings = targets.iter().flat_map(|target| &target.findings);
        Ok(Self {
            schema_version: SCHEMA_VERSION,
            gpafuzz: env!("CARGO_PKG_VERSION").to_owned(),
            out: out.display().to_string(),
            interrupted: false,
            replay: findings.map(|finding| finding.replay.clone()).collect(),
            coverage: None,
            untimed: Untimed { seed, targets, digest: digest.to_string() },
            timing,
        })
    }

    /// Findings that are not known.
    pub fn new_findings(&self) -> usize {
        let findings = self.untimed.targets.iter().flat_map(|target| &target.findings);
        findings.filter(|finding| finding.known.is_none()).count()
    }

    /// What a person reads: on one screen, or with every oracle and every finding if it is `verbose`.
    pub fn table(&self, verbose: bool) -> String {
        let mut out = String::new();
        self.targets_table(&mut out);
        if verbose {
            self.oracles_table(&mut out);
        } else {
            self.unjudged_list(&mut out);
        }
        for coverage in self.coverage.iter().flatten() {
            coverage.table(&mut out);
        }
        self.evidence_list(&mut out, verbose);
        self.findings_list(&mut out, verbose);
        let _ = writeln!(out, "\nseed {}, digest {}", self.untimed.seed, self.untimed.digest);
        out
    }

    fn targets_table(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "{:<16} {:>12} {:>14} {:>12} {:>8} {:>8} {:>9}",
            "target", "executions", "ops", "ops/s", "corpus", "cells", "findings"
        );
        for (target, timing) in self.untimed.targets.iter().zip(&self.timing.targets) {
            let _ = writeln!(
                out,
                "{:<16} {:>12} {:>14} {:>12} {:>8} {:>8} {:>9}",
                target.target,
                target.executions,
                target.ops.judged,
                timing.ops_per_second,
                target.corpus,
                target.cells,
                target.findings.len()
            );
        }
    }

    fn oracles_table(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "\n{:<16} {:<14} {:>12} {:>12} {:>12}",
            "target", "oracle", "checked", "skipped", "unsupported"
        );
        for target in &self.untimed.targets {
            for (oracle, [checked, skipped, unsupported]) in by_oracle(&target.checks) {
                let nothing = if checked > 0 { "" } else { "   nothing was judged" };
                let _ = writeln!(
                    out,
                    "{:<16} {oracle:<14} {checked:>12} {skipped:>12} {unsupported:>12}{nothing}",
                    target.target
                );
            }
        }
    }

    fn evidence_list(&self, out: &mut String, verbose: bool) {
        for (target, timing) in self.untimed.targets.iter().zip(&self.timing.targets) {
            if let (Some(rate), Some(evidence)) = (timing.accesses_per_second, &timing.evidence) {
                let programs = timing.executions_per_second;
                let evidence = if verbose { format!("; {evidence}") } else { String::new() };
                let _ = writeln!(out, "\n{}: {programs} programs/s, {rate} accesses/s{evidence}", target.target);
            }
        }
    }

    /// Oracles that judged nothing: their silence says nothing.
    fn unjudged_list(&self, out: &mut String) {
        let mut targets: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for target in &self.untimed.targets {
            let oracles = by_oracle(&target.checks);
            let unjudged: Vec<_> =
                oracles.iter().filter(|(_, counts)| counts[0] == 0).map(|(oracle, _)| *oracle).collect();
            if !unjudged.is_empty() {
                targets.entry(unjudged.join(", ")).or_default().push(&target.target);
            }
        }
        for (oracles, targets) in targets {
            let _ = writeln!(out, "\nnothing was judged by {oracles} on {}", targets.join(", "));
        }
    }

    /// New findings one by one, known ones by their cause; each one by one if it is `verbose`.
    fn findings_list(&self, out: &mut String, verbose: bool) {
        for target in &self.untimed.targets {
            let lines = |finding| finding_lines(&target.target, Path::new(&self.out), finding);
            let (known, new): (Vec<_>, Vec<_>) = target.findings.iter().partition(|finding| finding.known.is_some());
            let shown = if verbose { new.len() } else { NEW_SHOWN };
            new.iter().take(shown).for_each(|finding| out.push_str(&lines(finding)));
            if new.len() > shown {
                let _ = writeln!(
                    out,
                    "\n{}: {} more new findings: {}/findings",
                    target.target,
                    new.len() - shown,
                    self.out
                );
            }
            if verbose {
                known.iter().for_each(|finding| out.push_str(&lines(finding)));
            } else if !known.is_empty() {
                out.push('\n');
                out.push_str(&causes(&target.target, Path::new(&self.out), &known));
            }
        }
        if self.untimed.targets.iter().all(|target| target.findings.is_empty()) {
            out.push_str("\nno oracle objects\n");
        }
    }
}

/// New findings of a target that are shown one by one.
const NEW_SHOWN: usize = 5;

/// A line for each cause of `known` findings on `target`: how many signatures it has, and the smallest program that shows it.
fn causes(target: &str, out: &Path, known: &[&FindingSummary]) -> String {
    let mut by_cause: BTreeMap<&str, Vec<&FindingSummary>> = BTreeMap::new();
    for finding in known {
        let cause = finding.known.as_ref().map_or("", |known| known.gap.as_str());
        by_cause.entry(cause).or_default().push(finding);
    }
    let mut lines = String::new();
    for (cause, findings) in by_cause {
        let Some(smallest) = findings.iter().min_by_key(|finding| (finding.ops_after, finding.execution)) else {
            continue;
        };
        let signatures =
            if findings.len() == 1 { "1 signature".into() } else { format!("{} signatures", findings.len()) };
        let folder = out.join(&smallest.folder).display().to_string();
        let _ = writeln!(lines, "{target}: {cause} · known · {signatures} · e.g. {folder}");
    }
    lines
}

/// A finding on `target` as a person reads it. It was written below `out`.
pub fn finding_lines(target: &str, out: &Path, finding: &FindingSummary) -> String {
    let SignatureText { oracle, clause, op, alias, slot } = &finding.signature;
    let what = match &finding.known {
        Some(known) => format!("known ({}: {})", known.gap, known.reason),
        None => "new".into(),
    };
    let flaky = Confirmed::words(finding.confirmed, finding.reproduces);
    let folder = out.join(&finding.folder).display().to_string();
    let seen = if finding.seen.is_empty() {
        String::new()
    } else {
        format!("\n  what was seen when it was found is kept there: {}", finding.seen.join(" and "))
    };
    format!(
        "\n{target}: {oracle}/{clause}/{op}/{alias}/{slot}: {what}\n  {} ops, minimised to {}{flaky}\n  {folder}{seen}\n  {}\n",
        finding.ops_before, finding.ops_after, finding.replay
    )
}
