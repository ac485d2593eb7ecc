//! Differences between two runs of one program, and whether the model explains them.
//!
//! KVM need not do all that it may do: what a read leaves in the dirty log depends on the host's page tables. The model
//! explains a difference if no oracle objects to either run. Otherwise the difference is a finding.

use crate::trace::Trace;
use crate::trace::replay::Replay;
use gpa_model::Exit;
use gpa_oracles::{Lockstep, Violation};

/// An op with another observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The number of the op.
    pub at: usize,
    /// The other observation.
    pub exit: Exit,
    /// The objection of an oracle, if there is one.
    pub objection: Option<Violation>,
}

/// Judges the variants of `trace`.
pub fn variants(trace: &Trace) -> Vec<Difference> {
    trace.variants.iter().map(|variant| judge(trace, variant.at, variant.exit)).collect()
}

/// Judges where `other`, a trace of the same program, differs from `trace`.
pub fn differences(trace: &Trace, other: &Trace) -> Vec<Difference> {
    let pairs = trace.observations.iter().zip(&other.observations).enumerate();
    let differing = pairs.filter_map(|(at, (mine, other))| Some((at, (*other)?)).filter(|_| mine != other));
    differing.map(|(at, exit)| judge(trace, at, exit)).collect()
}

/// Judges `trace` with `exit` for op number `at`.
fn judge(trace: &Trace, at: usize, exit: Exit) -> Difference {
    let mut other = trace.clone();
    other.observations[at] = Some(exit);
    let program = other.program.clone();
    let mut replay = Replay::default();
    replay.load(other);
    Difference { at, exit, objection: Lockstep::default().run(&mut replay, &program) }
}
