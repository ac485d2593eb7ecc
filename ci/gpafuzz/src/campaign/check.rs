//! How often each clause of each oracle was at stake.

use gpa_oracles::{Clause, Lockstep, Tally};
use serde::{Deserialize, Serialize};

/// One clause of one oracle. If nothing was checked it was not passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The oracle.
    pub oracle: String,
    /// The clause of its law.
    pub clause: String,
    /// Judged, with something that could have been wrong.
    pub checked: u64,
    /// Came up with nothing to judge.
    pub skipped: u64,
    /// Came up, but the target cannot show it.
    pub unsupported: u64,
}

/// The clauses of `run` with their counts.
pub fn checks(run: &Lockstep) -> Vec<Check> {
    let check = |(oracle, clause, tally): (&str, &Clause, Tally)| Check {
        oracle: oracle.into(),
        clause: clause.name.into(),
        checked: tally.checked,
        skipped: tally.skipped,
        unsupported: tally.unsupported,
    };
    run.tallies().map(check).collect()
}

/// Checked, skipped and unsupported for each oracle, in the order in which they come.
pub(super) fn by_oracle(checks: &[Check]) -> Vec<(&str, [u64; 3])> {
    let mut oracles: Vec<(&str, [u64; 3])> = Vec::new();
    for check in checks {
        let counts = [check.checked, check.skipped, check.unsupported];
        match oracles.last_mut() {
            Some((oracle, sums)) if *oracle == check.oracle => {
                for (sum, count) in sums.iter_mut().zip(counts) {
                    *sum += count;
                }
            }
            _ => oracles.push((&check.oracle, counts)),
        }
    }
    oracles
}
