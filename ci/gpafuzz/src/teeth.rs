//! The kill matrix: which oracle catches which mutant, how soon, and with how small a program.
//!
//! Each mutant is hunted by a campaign like any other, with no program made for it: first judged by all oracles, until one
//! objects. If that is not the oracle and clause meant for the mutant, a second campaign from the same seed is judged by
//! the oracle meant for it alone, so that no other ends a program before it can object.
//!
//! As JSON this is [`Teeth`]; with the same mutants, seeds and runs it is the same, byte for byte.

use crate::campaign::{left, shrink, status};
use crate::catalogue::{Catalogue, Quarry};
use crate::engine::{Budget, Engine, Found};
use crate::finding::SignatureText;
use crate::progress::Progress;
use crate::target::{Target, TargetError};
use crate::targets;
use gpa_model::text;
use gpa_oracles::{Lockstep, Violation};
use kvm_mmu::mutants::Equivalent;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The version of [`Teeth`] as JSON; larger when a field changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;

/// The width of the column of laws, if none is longer.
const LAW_WIDTH: usize = 28;

/// The kill matrix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Teeth {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The version of gpafuzz.
    pub gpafuzz: String,
    /// How many programs a mutant was given at most, in each campaign.
    pub runs: u64,
    /// How many seconds a campaign was given at most, if time was a bound, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// The seeds: each mutant is hunted once from each.
    pub seeds: Vec<u64>,
    /// The mutants in the order of the catalogue. Fewer than were asked for if Ctrl-C ended the hunt.
    pub mutants: Vec<Row>,
    /// Whether Ctrl-C ended the hunt; the last row may then have fewer hunts than there are seeds.
    pub interrupted: bool,
    /// Mutants that nobody can tell from the corrected design, and so are not hunted.
    pub equivalent: Vec<EquivalentText>,
}

/// One mutant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The mutant.
    pub mutant: String,
    /// The hunk or claim of the RFC, or the mistake of history, that it breaks or makes.
    pub breaks: String,
    /// The oracle and clause meant for it.
    pub meant: Law,
    /// In how many hunts these caught it.
    pub killed: usize,
    /// Executions until they did, over the hunts in which they did.
    pub executions: Option<Spread>,
    /// Ops of the minimised program, over the same.
    pub ops: Option<Spread>,
    /// One for each seed, in their order.
    pub hunts: Vec<Hunt>,
}

/// An oracle and a clause of its law.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Law {
    /// The oracle.
    pub oracle: String,
    /// The clause.
    pub clause: String,
}

impl Law {
    fn is_of(&self, violation: &Violation) -> bool {
        (self.oracle.as_str(), self.clause.as_str()) == (violation.signature.oracle, violation.signature.clause)
    }
}

impl From<(&str, &str)> for Law {
    fn from((oracle, clause): (&str, &str)) -> Self {
        Self { oracle: oracle.into(), clause: clause.into() }
    }
}

impl std::fmt::Display for Law {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.oracle, self.clause)
    }
}

/// The least, the middle and the greatest of some numbers; of an even count the lower middle one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// The least.
    pub min: u64,
    /// The middle one.
    pub median: u64,
    /// The greatest.
    pub max: u64,
}

impl Spread {
    /// The spread of `numbers`, if there are any.
    fn of(numbers: impl Iterator<Item = u64>) -> Option<Self> {
        let mut sorted: Vec<u64> = numbers.collect();
        sorted.sort_unstable();
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        Some(Self { min, median: sorted[(sorted.len() - 1) / 2], max })
    }
}

/// One mutant hunted from one seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hunt {
    /// The seed.
    pub seed: u64,
    /// What objected first where all oracles judged; nothing if the mutant survived them.
    pub first: Option<First>,
    /// How what was meant for it caught it, if it did.
    pub caught: Option<Caught>,
}

/// The first objection of all oracles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct First {
    /// Who objected.
    pub by: Law,
    /// At which execution, from 1.
    pub execution: u64,
}

/// The first objection of the oracle and clause meant for the mutant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Caught {
    /// Whether the oracle had to be asked alone, because another, or another clause of it, objects before it.
    pub alone: bool,
    /// At which execution of its campaign, from 1.
    pub execution: u64,
    /// The signature.
    pub signature: SignatureText,
    /// What the oracle said about the minimised program.
    pub why: String,
    /// Ops of the program as found.
    pub ops_before: usize,
    /// Ops of the minimised program.
    pub ops_after: usize,
    /// Whether the minimised program showed it again when it was run once more.
    pub reproduces: bool,
    /// The minimised program.
    pub program: String,
}

/// An [`Equivalent`] in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EquivalentText {
    /// The mutant.
    pub mutant: String,
    /// What it changes, and why no law is broken.
    pub why: String,
}

impl From<&Equivalent> for EquivalentText {
    fn from(equivalent: &Equivalent) -> Self {
        Self { mutant: equivalent.name.into(), why: equivalent.why.into() }
    }
}

/// What is the same for every mutant.
#[derive(Clone, Debug)]
pub struct Setting<'a> {
    /// How many programs a mutant is given at most, in each campaign.
    pub runs: u64,
    /// For how many seconds each campaign may go on, if that is a bound, too.
    pub seconds: Option<u64>,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// Ends the hunt when it is set.
    pub stop: &'a AtomicBool,
}

impl Setting<'_> {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Hunt each mutant of `catalogue`, one after the other: each is there only as long as it is hunted.
///
/// # Errors
/// If a target cannot be had, or fails.
pub fn hunt_all(catalogue: &Catalogue, setting: &Setting<'_>) -> Result<Teeth, TargetError> {
    let mut rows = Vec::new();
    for quarry in &catalogue.mutants {
        if setting.is_stopped() {
            break;
        }
        let mut opened = targets::open(&quarry.target)?;
        rows.push(row(quarry, opened.target.as_mut(), setting)?);
    }
    Ok(Teeth {
        schema_version: SCHEMA_VERSION,
        gpafuzz: env!("CARGO_PKG_VERSION").to_owned(),
        runs: setting.runs,
        seconds: setting.seconds,
        seeds: setting.seeds.clone(),
        mutants: rows,
        interrupted: setting.is_stopped(),
        equivalent: catalogue.equivalent.iter().map(EquivalentText::from).collect(),
    })
}

fn row(mutant: &Quarry, target: &mut dyn Target, setting: &Setting<'_>) -> Result<Row, TargetError> {
    let meant = Law::from(mutant.caught_by);
    let mut hunts = Vec::new();
    for &seed in &setting.seeds {
        match hunt(mutant.name, target, &meant, seed, setting)? {
            Some(hunt) => hunts.push(hunt),
            None => break,
        }
    }
    let caught = || hunts.iter().filter_map(|hunt| hunt.caught.as_ref());
    Ok(Row {
        mutant: mutant.name.into(),
        breaks: mutant.breaks.into(),
        killed: caught().count(),
        executions: Spread::of(caught().map(|caught| caught.execution)),
        ops: Spread::of(caught().map(|caught| caught.ops_after as u64)),
        meant,
        hunts,
    })
}

/// Hunt one mutant from one seed; nothing if Ctrl-C came between.
fn hunt(
    name: &str,
    target: &mut dyn Target,
    meant: &Law,
    seed: u64,
    setting: &Setting<'_>,
) -> Result<Option<Hunt>, TargetError> {
    let shown = if setting.seeds.len() > 1 { format!("{name}, seed {seed}") } else { name.to_owned() };
    let budget = || Budget {
        runs: Some(setting.runs),
        deadline: setting.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
        stop: setting.stop,
    };
    let any = find(&shown, target, Lockstep::default(), seed, budget(), |_| true)?;
    let mut caught = None;
    if let Some(found) = any.as_ref().filter(|found| meant.is_of(&found.violation)) {
        caught = Some(keep(target, Lockstep::default(), false, found)?);
    } else if any.is_some() {
        let alone = || Lockstep::new(gpa_oracles::only(&meant.oracle));
        let shown = format!("{shown}, {} alone", meant.oracle);
        if let Some(found) = find(&shown, target, alone(), seed, budget(), |violation| meant.is_of(violation))? {
            caught = Some(keep(target, alone(), true, &found)?);
        }
    }
    if caught.is_none() && setting.is_stopped() {
        return Ok(None);
    }
    let first = any.map(|Found { violation, execution, .. }| {
        let by = Law::from((violation.signature.oracle, violation.signature.clause));
        First { by, execution }
    });
    Ok(Some(Hunt { seed, first, caught }))
}

/// A campaign that ends with the first violation that is `wanted`.
fn find(
    name: &str,
    target: &mut dyn Target,
    run: Lockstep,
    seed: u64,
    budget: Budget<'_>,
    wanted: impl Fn(&Violation) -> bool,
) -> Result<Option<Found>, TargetError> {
    let mut progress = Progress::new(name, left(&budget));
    let mut engine = Engine::new(target, run, seed, budget)?;
    let mut found = None;
    while found.is_none() && !engine.is_done() {
        engine.round()?;
        found = engine.take_found().into_iter().find(|found| wanted(&found.violation));
        progress.tick(|| status(&engine, 0));
    }
    progress.finish(&status(&engine, usize::from(found.is_some())));
    Ok(found)
}

fn keep(target: &mut dyn Target, mut run: Lockstep, alone: bool, found: &Found) -> Result<Caught, TargetError> {
    let smaller = shrink(target, &mut run, &found.program, &found.violation)?;
    Ok(Caught {
        alone,
        execution: found.execution,
        signature: (&found.violation.signature).into(),
        why: smaller.why,
        ops_before: found.program.ops.len(),
        ops_after: smaller.program.ops.len(),
        reproduces: smaller.reproduces,
        program: text::print(&smaller.program),
    })
}

impl Teeth {
    /// Whether what was meant for each mutant caught it from every seed.
    pub fn all_killed(&self) -> bool {
        !self.interrupted && self.mutants.iter().all(|row| row.killed == self.seeds.len())
    }

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
        out.push_str(
            "\nEquivalent mutants, which nobody can tell from the corrected design, and which are not hunted:\n",
        );
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
        let mut others: BTreeMap<(&Law, bool), Vec<u64>> = BTreeMap::new();
        let mut survived = 0;
        for hunt in &row.hunts {
            match (&hunt.first, &hunt.caught) {
                (None, _) => survived += 1,
                (Some(_), Some(caught)) if !caught.alone => {}
                (Some(first), caught) => {
                    others.entry((&first.by, caught.is_some())).or_default().push(first.execution);
                }
            }
        }
        let times = |count: usize| {
            if self.seeds.len() > 1 { format!(" from {count} of {} seeds", row.hunts.len()) } else { String::new() }
        };
        let others = others.into_iter().map(|((by, caught), executions)| {
            let soonest = executions.iter().min().copied().unwrap_or_default();
            let at = if self.seeds.len() > 1 { " at the soonest" } else { "" };
            let then = if caught { "its own oracle was then asked alone" } else { "its own oracle, alone, never did" };
            format!("{by} objects first{}, at execution {soonest}{at}; {then}", times(executions.len()))
        });
        let survivor =
            (survived > 0).then(|| format!("SURVIVED all oracles{}: {} executions", times(survived), self.runs));
        others.chain(survivor).collect()
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
        Hunt { seed, first: first.map(|by| First { by: by.into(), execution: seed }), caught }
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
    fn a_spread_has_the_lower_middle() {
        assert_eq!(Spread::of([4, 1, 3, 2].into_iter()), Some(Spread { min: 1, median: 2, max: 4 }));
        assert_eq!(Spread::of(std::iter::empty()), None);
    }
}
