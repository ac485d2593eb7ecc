//! The result of stress: counts, findings, and a summary in words.

use super::SHOWN;
use super::vcpus::Spun;
use crate::error::MachineError;
use crate::guest::spinner::{Complaint, Name};
use crate::machine::Machine;
use gpa_model::VmConfig;
use gpa_model::text::print_gpa;
use std::fmt::Write;
use std::time::Duration;

/// The result of stress.
#[derive(Clone, Debug, Default)]
pub struct StressReport {
    /// How often each kind of round was played.
    pub rounds: Vec<(&'static str, u64)>,
    /// How often each vCPU went through all its names.
    pub laps: Vec<u64>,
    /// Guest accesses.
    pub accesses: u64,
    /// Exits for holes.
    pub exits: u64,
    /// Entries that failed because a host page was briefly inaccessible, and were repeated.
    pub repeated: u64,
    /// Frames that were certainly written between a clearing of the log and the look at it.
    pub harvested: u64,
    /// Complaints of the guest, and frames that the dirty log missed.
    pub findings: u64,
    /// The first findings, in words.
    pub shown: Vec<String>,
}

impl StressReport {
    pub(super) fn find(&mut self, what: String) {
        self.findings += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(what);
        }
    }

    /// Adds the result of one vCPU.
    pub(super) fn add(&mut self, vm: &VmConfig, vcpu: usize, names: &[Name], spun: &Spun, laps: u64) {
        self.laps.push(laps);
        // A lap reads, writes and reads each name.
        self.accesses += laps * names.len() as u64 * 3;
        self.exits += spun.exits;
        self.repeated += spun.repeated;
        for complaint in &spun.complaints {
            let (what, name, expected, found) = match *complaint {
                Complaint::Stale { name, expected, found } => ("read identity", name, expected, found),
                Complaint::Lost { name, expected, found } => ("after a write read", name, expected, found),
            };
            let place =
                names.get(name).map_or_else(|| "?".into(), |name| print_gpa(vm, vm.gpa(name.frame, name.alias)));
            self.find(format!("v{vcpu} at {place}: {what} {found:#x}, expected {expected:#x}"));
        }
    }
}

/// A report in words.
#[derive(Clone, Debug)]
pub struct StressSummary {
    /// What was done and found, in lines.
    pub text: String,
    /// Whether there are findings.
    pub has_findings: bool,
}

impl Machine {
    /// Stresses this machine like [`Machine::stress`], and describes the result.
    ///
    /// # Errors
    /// As [`Machine::stress`].
    pub fn stress_summary(&mut self, vcpus: usize, duration: Duration) -> Result<StressSummary, MachineError> {
        let alias_method = self.fingerprint().alias_method;
        let before = self.witness();
        let report = self.stress(vcpus, duration)?;
        let after = self.witness();
        let StressReport { accesses, exits, repeated, harvested, findings, .. } = report;
        let native = if after.is_native_since(&before) { "native" } else { "not proven native: nothing was judged" };
        let rate = accesses as f64 / duration.as_secs_f64();
        let laps: Vec<String> = report.laps.iter().map(u64::to_string).collect();
        let rounds: Vec<String> = report.rounds.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let mut text = format!("aliases by {alias_method}: {vcpus} vCPUs, {native}, {rate:.0} accesses/s\n");
        let _ = writeln!(text, "  laps {}; {exits} exits for holes, {repeated} entries repeated", laps.join(" and "));
        let _ = writeln!(text, "  rounds: {}", rounds.join(", "));
        let _ = writeln!(text, "  {harvested} frames certainly written after their log was cleared");
        let _ = writeln!(text, "  {}", after.show_since(&before));
        let _ = writeln!(text, "  {findings} findings");
        report.shown.iter().for_each(|finding| _ = writeln!(text, "    {finding}"));
        Ok(StressSummary { text, has_findings: findings > 0 })
    }
}
