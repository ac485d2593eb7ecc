//! The kill matrix as a person reads it.

use super::{Bound, EquivalentText, Hunt, Law, Row, Spread, Teeth};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The width of the column of laws, if none is longer.
const LAW_WIDTH: usize = 28;

impl Teeth {
    /// The table that a person reads.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let several = self.seeds.len() > 1;
        let spread = if several { "killed       min    median       max" } else { "executions" };
        let laws = self.mutants.iter().map(|row| row.meant.to_string().len());
        let width = laws.max().unwrap_or(0).max(LAW_WIDTH);
        let _ = writeln!(out, "{:<30} {:<width$} {spread}  ops  breaks", "mutant", "oracle/clause");
        for row in &self.mutants {
            self.row(&mut out, row, width);
        }
        self.verdict(&mut out);
        if self.equivalent.is_empty() {
            return out;
        }
        out.push_str("\nEquivalent mutants: they behave like the corrected design and are not hunted:\n");
        for EquivalentText { mutant, why } in &self.equivalent {
            let _ = writeln!(out, "  {mutant:<28} {why}");
        }
        out
    }

    fn row(&self, out: &mut String, row: &Row, width: usize) {
        let number = |number: Option<u64>| number.map_or_else(|| "-".into(), |number| number.to_string());
        let [min, median, max] =
            [|s: Spread| s.min, |s: Spread| s.median, |s: Spread| s.max].map(|part| number(row.executions.map(part)));
        let spread = if self.seeds.len() > 1 {
            let killed = format!("{}/{}", row.killed, row.hunts.len());
            format!("{killed:>6} {min:>9} {median:>9} {max:>9}")
        } else {
            format!("{min:>10}")
        };
        let ops = number(row.ops.map(|ops| ops.max));
        let law = row.meant.to_string();
        let _ = writeln!(out, "{:<30} {law:<width$} {spread} {ops:>4}  {}", row.mutant, row.breaks);
        for remark in self.remarks(row) {
            let _ = writeln!(out, "    {remark}");
        }
    }

    /// What is to be said about hunts that did not end as they were meant to.
    fn remarks(&self, row: &Row) -> Vec<String> {
        let mut alike: BTreeMap<(Option<&Law>, Option<Bound>), Vec<&Hunt>> = BTreeMap::new();
        for hunt in &row.hunts {
            if hunt.caught.as_ref().is_none_or(|caught| caught.alone) {
                let first = hunt.first.as_ref().map(|first| &first.by);
                alike.entry((first, hunt.survived.map(|end| end.ended_by))).or_default().push(hunt);
            }
        }
        let remark = |((first, bound), hunts): ((Option<&Law>, Option<Bound>), Vec<&Hunt>)| {
            let several = self.seeds.len() > 1;
            let seeds =
                if several { format!(" from {} of {} seeds", hunts.len(), row.hunts.len()) } else { String::new() };
            let end = bound.map(|bound| self.end(bound, &hunts));
            let Some(by) = first else { return format!("SURVIVED all oracles{seeds}: {}", end.unwrap_or_default()) };
            let at = hunts.iter().filter_map(|hunt| hunt.first.as_ref()).map(|first| first.execution).min();
            let (at, soonest) = (at.unwrap_or_default(), if several { " at the soonest" } else { "" });
            let then = end.map_or_else(
                || "its own oracle was then asked alone".to_owned(),
                |end| format!("its own oracle, alone, never did: {end}"),
            );
            format!("{by} objects first{seeds}, at execution {at}{soonest}; {then}")
        };
        alike.into_iter().map(remark).collect()
    }

    /// How many executions `hunts` came to, each of which ended by `bound`.
    fn end(&self, bound: Bound, hunts: &[&Hunt]) -> String {
        let executions = hunts.iter().filter_map(|hunt| hunt.survived).map(|end| end.executions);
        let Some(Spread { min, max, .. }) = Spread::of(executions) else { return String::new() };
        let executions = if min == max { min.to_string() } else { format!("{min} to {max}") };
        match bound {
            Bound::Runs => format!("{executions} executions, as many as it was given"),
            Bound::Seconds => format!("{executions} executions, when {} s were over", self.seconds.unwrap_or_default()),
        }
    }

    fn verdict(&self, out: &mut String) {
        let (killed, all) =
            (self.mutants.iter().filter(|row| row.killed == self.seeds.len()).count(), self.mutants.len());
        let seeds = match self.seeds.as_slice() {
            [seed] => format!("seed {seed}"),
            seeds => format!("seeds {} to {}", seeds.first().unwrap_or(&0), seeds.last().unwrap_or(&0)),
        };
        let _ = writeln!(
            out,
            "\n{killed} of {all} mutants are killed by the oracle and clause meant for them, each within {} executions{}; {seeds}",
            self.runs,
            self.seconds.map_or_else(String::new, |seconds| format!(" and {seconds} s"))
        );
        if self.interrupted {
            out.push_str("interrupted: the mutants after these were not hunted\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::finding::SignatureText;
    use crate::teeth::{Caught, First, SCHEMA_VERSION, Survived};

    fn teeth(hunts: &[Hunt]) -> Teeth {
        let caught = || hunts.iter().filter_map(|hunt| hunt.caught.as_ref());
        let row = Row {
            mutant: "M00-example".into(),
            breaks: "an example".into(),
            meant: ("progress", "retry").into(),
            killed: caught().count(),
            executions: Spread::of(caught().map(|caught| caught.execution)),
            ops: Spread::of(caught().map(|caught| caught.ops_after as u64)),
            hunts: hunts.to_vec(),
        };
        Teeth {
            schema_version: SCHEMA_VERSION,
            gpafuzz: "0".into(),
            runs: 1000,
            seconds: None,
            seeds: (1..=hunts.len() as u64).collect(),
            mutants: vec![row],
            interrupted: false,
            equivalent: Vec::new(),
        }
    }

    fn hunt(seed: u64, first: Option<(&str, &str)>, caught: Option<bool>) -> Hunt {
        let signature = ["progress", "retry", "read", "alias", "user"].map(str::to_owned);
        let [oracle, clause, op, alias, slot] = signature;
        let caught = caught.map(|alone| Caught {
            alone,
            execution: 10 * seed,
            signature: SignatureText { oracle, clause, op, alias, slot },
            why: String::new(),
            ops_before: 9,
            ops_after: 2,
            reproduces: true,
            program: String::new(),
        });
        let survived = caught.is_none().then_some(Survived { executions: 1000, ended_by: Bound::Runs });
        Hunt { seed, first: first.map(|by| First { by: by.into(), execution: seed }), caught, survived }
    }

    #[test]
    fn a_mutant_that_survives_or_is_another_oracles_is_not_killed() {
        let (meant, other) = (Some(("progress", "retry")), Some(("structure", "rmap")));
        let killed = teeth(&[hunt(1, meant, Some(false)), hunt(2, other, Some(true))]);
        assert!(killed.all_killed());
        for hunts in [[hunt(1, None, None)], [hunt(1, other, None)]] {
            let teeth = teeth(&hunts);
            assert!(!teeth.all_killed());
            insta::assert_snapshot!(teeth.table());
        }
        let several = [(meant, Some(false)), (other, Some(true)), (other, Some(true)), (other, None), (None, None)];
        let several = several.into_iter().zip(1..).map(|((first, caught), seed)| hunt(seed, first, caught));
        insta::assert_snapshot!(teeth(&several.collect::<Vec<_>>()).table());
        assert!(!Teeth { interrupted: true, ..killed }.all_killed());
    }

    #[test]
    fn a_mutant_that_survives_its_time_is_said_to() {
        let mut hunts = [1, 2, 3].map(|seed| hunt(seed, None, None));
        for (hunt, executions) in hunts.iter_mut().zip([634, 600]) {
            hunt.survived = Some(Survived { executions, ended_by: Bound::Seconds });
        }
        let table = |hunts: &[Hunt]| Teeth { seconds: Some(90), ..teeth(hunts) }.table();
        insta::assert_snapshot!(table(&hunts[..1]));
        insta::assert_snapshot!(table(&hunts));
    }
}
