//! Differences between two runs of one program, and whether the model explains them.
//!
//! Not everything that KVM may do it must do: what a read leaves in the dirty log hangs on the host's own page tables. Such a
//! difference is explained, because no oracle objects to either side. One that is not explained is a finding.

use crate::trace::Trace;
use crate::trace::replay::Replay;
use gpa_model::Exit;
use gpa_oracles::{Lockstep, Violation};

/// An op that came to something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The number of the op.
    pub at: usize,
    /// What was observed.
    pub exit: Exit,
    /// What an oracle objects, if it does.
    pub objection: Option<Violation>,
}

/// What the variants of `trace` are worth.
pub fn variants(trace: &Trace) -> Vec<Difference> {
    trace.variants.iter().map(|variant| judge(trace, variant.at, variant.exit)).collect()
}

/// Where `other`, a trace of the same program, differs from `trace`.
pub fn differences(trace: &Trace, other: &Trace) -> Vec<Difference> {
    let pairs = trace.observations.iter().zip(&other.observations).enumerate();
    let differing = pairs.filter_map(|(at, (mine, other))| Some((at, (*other)?)).filter(|_| mine != other));
    differing.map(|(at, exit)| judge(trace, at, exit)).collect()
}

/// Whether `trace` would still be clean, had op number `at` come to `exit`.
fn judge(trace: &Trace, at: usize, exit: Exit) -> Difference {
    let mut other = trace.clone();
    other.observations[at] = Some(exit);
    let program = other.program.clone();
    let mut replay = Replay::default();
    replay.load(other);
    Difference { at, exit, objection: Lockstep::default().run(&mut replay, &program) }
}
