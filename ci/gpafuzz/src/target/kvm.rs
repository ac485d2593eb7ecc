//! The target `kvm`: the host's `/dev/kvm`, live if it opens, otherwise traces that were recorded on one.
//!
//! `kvm:NAME` is the live one with its aliases made in a certain way, an [`AliasMethod`]. A campaign on `kvm` is one on each that
//! exists here.
//!
//! Both are judged alike: the answers of real KVM are a trace, and the trace is what the oracles see. The only difference is
//! whether it is made now.

use super::Opened;
use super::TargetError;
use super::traced::{Recorder, Traced};
use crate::files;
use gpa_model::generate::Profile;
use gpa_model::{OpKind, Program, Reclaim};
use gpa_oracles::Violation;
use hw_runner::{AliasMethod, Fingerprint, Machine, MachineError, Trace, Witness};
use std::path::{Path, PathBuf};

/// The name of the target.
pub(super) const NAME: &str = "kvm";

/// What stands before the name of an alias method.
pub(super) const LIVE: &str = "kvm:";

/// The names of the targets that a campaign on `kvm` is made of: those that exist here, or `kvm` itself if none does.
pub(super) fn expand() -> Vec<String> {
    let here = |alias_method: &AliasMethod| Machine::open_with(*alias_method).is_ok();
    let names: Vec<_> = AliasMethod::ALL.iter().copied().filter(here).map(|it| format!("{LIVE}{it}")).collect();
    if names.is_empty() { vec![NAME.to_owned()] } else { names }
}

/// Live, with aliases made by `alias_method`.
pub(super) fn open_live(alias_method: &str) -> Result<Opened, TargetError> {
    let known = || AliasMethod::ALL.map(|alias_method| format!("{LIVE}{alias_method}")).to_vec();
    let name = || format!("{LIVE}{alias_method}");
    let Some(alias_method) = AliasMethod::named(alias_method) else {
        return Err(TargetError::Unknown { name: name(), known: known() });
    };
    match Machine::open_with(alias_method) {
        Ok(machine) => Ok(live(machine)),
        Err(error) if error.is_absence() => Err(TargetError::Absent { name: NAME, why: error.to_string() }),
        Err(error) => Err(failed(&error)),
    }
}

fn live(machine: Machine) -> Opened {
    let note = format!("live on /dev/kvm, {}", describe(machine.fingerprint()));
    Opened { target: Box::new(Traced::new(Live::new(machine))), note: Some(note) }
}

/// Live, or else recorded.
pub(super) fn open() -> Result<Opened, TargetError> {
    let why = match Machine::open() {
        Ok(machine) => return Ok(live(machine)),
        Err(error) if error.is_absence() => error.to_string(),
        Err(error) => return Err(failed(&error)),
    };
    let traces = checked_in()?;
    if traces.is_empty() {
        let why = format!("{why}; and there are no recorded traces in corpus/hw");
        return Err(TargetError::Absent { name: NAME, why });
    }
    let note = format!("{} recorded traces, because there is no live one: {why}", traces.len());
    Ok(Opened { target: Box::new(Traced::new(Recorded(traces))), note: Some(note) })
}

/// What answers from `trace` alone.
pub(super) fn recorded(trace: Trace) -> Opened {
    let note = format!("a trace recorded on {}", describe(&trace.fingerprint));
    Opened { target: Box::new(Traced::new(Recorded(vec![trace]))), note: Some(note) }
}

pub(super) fn describe(fingerprint: &Fingerprint) -> String {
    let native = if fingerprint.native { "native" } else { "not proven native" };
    let Fingerprint { module, paging, alias_method, .. } = fingerprint;
    format!("{module}, paging {paging}, aliases by {alias_method}, {native}")
}

fn failed(error: &MachineError) -> TargetError {
    TargetError::Failed(error.to_string())
}

/// The traces that are checked in: below the current folder, or else where this was built.
fn checked_in() -> Result<Vec<Trace>, TargetError> {
    let folders = [PathBuf::from("corpus/hw"), Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/hw")];
    let entries = folders.iter().find_map(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "trace"));
    paths.sort();
    let read = |path: &PathBuf| files::read_trace(path).map_err(|error| TargetError::Failed(error.to_string()));
    paths.iter().map(read).collect()
}

/// Real KVM, now.
struct Live {
    machine: Machine,
    start: Witness,
}

impl Live {
    fn new(machine: Machine) -> Self {
        let start = machine.witness();
        Self { machine, start }
    }
}

impl Recorder for Live {
    fn record(&mut self, program: &Program, trace: &mut Trace) -> Result<Option<Violation>, TargetError> {
        match self.machine.run_into(program, trace) {
            Ok(()) => Ok(None),
            Err(error) if error.is_absence() => Err(TargetError::Absent { name: NAME, why: error.to_string() }),
            Err(error) => Err(failed(&error)),
        }
    }

    /// No stolen bit but those that can be stolen here, and pages taken away by every means there is. An access to a hole is an exit,
    /// which costs as much as a hundred accesses to memory.
    fn profile(&self) -> Profile {
        let mut profile = hw_runner::profile();
        if self.machine.can_prefault() {
            profile.kinds = profile.kinds.with(OpKind::Prefault);
        }
        if self.machine.fingerprint().alias_method.has_attributes() {
            profile.kinds = profile.kinds.with(OpKind::Attributes);
        }
        let bits = self.machine.stealable();
        let (low, high) = (bits.first().copied(), bits.last().copied());
        Profile {
            stolen_low: low.unwrap_or(profile.stolen_low),
            stolen_high: high.unwrap_or(profile.stolen_high),
            dirty_rings: self.machine.fingerprint().alias_method.has_rings(),
            reclaims: self.machine.reclaims().available(),
            few_holes: true,
            ..profile
        }
    }

    fn native(&self) -> bool {
        self.machine.fingerprint().native
    }

    fn accesses(&self) -> Option<u64> {
        Some(self.machine.accesses() - self.start.accesses)
    }

    fn evidence(&self) -> Option<String> {
        let (witness, reclaims) = (self.machine.witness(), self.machine.reclaims());
        let lacking = |reclaim: Reclaim| Some(format!("{} ({})", reclaim.name(), reclaims.lacking(reclaim)?));
        let lacking: Vec<String> = Reclaim::ALL.into_iter().filter_map(lacking).collect();
        Some(format!(
            "{}\n  unsupported here: {}",
            witness.show_since(&self.start),
            if lacking.is_empty() { "nothing".to_owned() } else { lacking.join(", ") }
        ))
    }
}

/// Real KVM, as it was.
struct Recorded(Vec<Trace>);

impl Recorder for Recorded {
    /// Answer from the trace of `program`. What its file says about it does not matter.
    fn record(&mut self, program: &Program, trace: &mut Trace) -> Result<Option<Violation>, TargetError> {
        let same = |trace: &&Trace| trace.program.vm == program.vm && trace.program.ops == program.ops;
        let Some(found) = self.0.iter().find(same) else {
            let why = "this program is not on record, and /dev/kvm cannot be opened to run it".into();
            return Err(TargetError::Absent { name: NAME, why });
        };
        trace.clone_from(found);
        Ok(None)
    }

    fn native(&self) -> bool {
        self.0.iter().all(|trace| trace.fingerprint.native)
    }

    fn recorded(&self) -> Option<Vec<Program>> {
        Some(self.0.iter().map(|trace| trace.program.clone()).collect())
    }
}
