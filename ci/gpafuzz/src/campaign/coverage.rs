//! What a campaign reached on a target, for the summary: situations with their counts, and what was never reached.

use super::check::Check;
use gpa_model::OpKind;
use gpa_oracles::Coverage;
use gpa_oracles::coverage::Situation;
use serde::Serialize;
use std::fmt::Write;

/// What was reached on one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetCoverage {
    /// The target.
    pub target: String,
    /// How often each clause of each oracle was at stake, in the order of the oracles.
    #[serde(skip)]
    pub checks: Vec<Check>,
    /// Situations that came up, by op in the order of its declaration, then outcome, alias and slot.
    pub situations: Vec<SituationCount>,
    /// Kinds of ops of which none was judged.
    pub ops_never_judged: Vec<String>,
    /// Clauses, as `oracle/clause`, of which nothing was checked, though the target shows what they are about.
    pub clauses_never_checked: Vec<String>,
}

/// How often an op came to an outcome at a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SituationCount {
    /// The kind of op.
    pub op: String,
    /// What it came to.
    pub outcome: String,
    /// Whether the address it is about is `base`, an `alias`, or there is `none`.
    pub alias: String,
    /// What kind of slot is there, or `none`.
    pub slot: String,
    /// How much the leaf translates that is there after the op, or `none`.
    pub level: String,
    /// How often.
    pub count: u64,
}

impl TargetCoverage {
    /// What `watch` counted in the campaign on `target` that came to `checks`.
    pub fn new(target: &str, checks: &[Check], watch: &Coverage) -> Self {
        let counts = watch.counts();
        let was_judged = |kind: &OpKind| counts.keys().any(|situation| situation.op == *kind);
        let never = OpKind::ALL.into_iter().filter(|kind| !was_judged(kind)).map(|kind| kind.name().to_owned());
        let unchecked = checks.iter().filter(|check| check.checked == 0 && check.unsupported == 0);
        let count = |(situation, count): (&Situation, &u64)| {
            let Situation { op, outcome, alias, slot, level } = *situation;
            let [op, outcome, alias, slot, level] = [op.name(), outcome, alias, slot, level].map(str::to_owned);
            SituationCount { op, outcome, alias, slot, level, count: *count }
        };
        Self {
            target: target.to_owned(),
            checks: checks.to_vec(),
            situations: counts.iter().map(count).collect(),
            ops_never_judged: never.collect(),
            clauses_never_checked: unchecked.map(|check| format!("{}/{}", check.oracle, check.clause)).collect(),
        }
    }

    /// The tables that a person reads.
    pub fn table(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "\ncoverage of {}\n  {:<30} {:>12} {:>12} {:>12}",
            self.target, "clause", "checked", "skipped", "unsupported"
        );
        for Check { oracle, clause, checked, skipped, unsupported } in &self.checks {
            let law = format!("{oracle}/{clause}");
            let _ = writeln!(out, "  {law:<30} {checked:>12} {skipped:>12} {unsupported:>12}");
        }
        let _ = writeln!(
            out,
            "\n  {:<14} {:<12} {:<6} {:<9} {:<6} {:>12}",
            "op", "outcome", "alias", "slot", "level", "judged"
        );
        for SituationCount { op, outcome, alias, slot, level, count } in &self.situations {
            let _ = writeln!(out, "  {op:<14} {outcome:<12} {alias:<6} {slot:<9} {level:<6} {count:>12}");
        }
        let list = |names: &[String]| if names.is_empty() { "none".into() } else { names.join(", ") };
        let _ = writeln!(out, "\n  ops never judged: {}", list(&self.ops_never_judged));
        let _ = writeln!(out, "  clauses never checked: {}", list(&self.clauses_never_checked));
    }
}
