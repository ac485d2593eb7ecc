//! The kill matrix: which oracle catches which mutant, how soon, and with how small a program.
//!
//! Each mutant is hunted by a campaign like any other, with no program made for it: first judged by all oracles, until one
//! objects. If that is not the oracle and clause meant for the mutant, a second campaign from the same seed is judged by
//! the oracle meant for it alone, so that no other ends a program before it can object.
//!
//! As JSON this is [`Teeth`]; with the same mutants, seeds and runs it is the same, byte for byte.

pub mod catalogue;
mod table;

use crate::campaign::course::{left, status};
use crate::campaign::finding::SignatureText;
use crate::campaign::shrink;
use crate::engine::{Budget, Engine, Found};
use crate::target::registry;
use crate::target::{Target, TargetError};
use crate::terminal::progress::Progress;
use catalogue::{Catalogue, Quarry};
use gpa_model::text;
use gpa_oracles::{Lockstep, Violation};
use kvm_mmu::mutants::Equivalent;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The version of [`Teeth`] as JSON; larger when a field changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;

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
    /// Mutants that behave like the corrected design, and so are not hunted.
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
    /// How the campaign ended in which that did not object, if it did not.
    pub survived: Option<Survived>,
}

/// How a campaign ended that a mutant survived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Survived {
    /// Programs that were run.
    pub executions: u64,
    /// What there was no more of.
    pub ended_by: Bound,
}

/// A bound of a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// [`Teeth::runs`].
    Runs,
    /// [`Teeth::seconds`].
    Seconds,
}

/// The first objection of all oracles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct First {
    /// The oracle and clause that objected.
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
        let mut opened = registry::open(&quarry.target)?;
        let row = row(quarry, opened.target.as_mut(), setting)?;
        // Of one that Ctrl-C came upon in its first hunt nothing is known.
        if row.hunts.is_empty() {
            break;
        }
        rows.push(row);
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
    let (mut caught, mut survived) = (None, None);
    match &any {
        Err(end) => survived = Some(*end),
        Ok(found) if meant.is_of(&found.violation) => caught = Some(keep(target, Lockstep::default(), false, found)?),
        Ok(_) => {
            let alone = || Lockstep::new(gpa_oracles::only(&meant.oracle));
            let shown = format!("{shown}, {} alone", meant.oracle);
            match find(&shown, target, alone(), seed, budget(), |violation| meant.is_of(violation))? {
                Ok(found) => caught = Some(keep(target, alone(), true, &found)?),
                Err(end) => survived = Some(end),
            }
        }
    }
    if caught.is_none() && setting.is_stopped() {
        return Ok(None);
    }
    let first = any.ok().map(|Found { violation, execution, .. }| {
        let by = Law::from((violation.signature.oracle, violation.signature.clause));
        First { by, execution }
    });
    Ok(Some(Hunt { seed, first, caught, survived }))
}

/// A campaign that ends with the first violation that is `wanted`.
fn find(
    name: &str,
    target: &mut dyn Target,
    run: Lockstep,
    seed: u64,
    budget: Budget<'_>,
    wanted: impl Fn(&Violation) -> bool,
) -> Result<Result<Found, Survived>, TargetError> {
    let mut progress = Progress::new(name, left(&budget));
    let mut engine = Engine::new(target, run, seed, budget)?;
    let mut found = None;
    while found.is_none() && !engine.is_done() {
        engine.round()?;
        found = engine.take_found().into_iter().find(|found| wanted(&found.violation));
        progress.tick(|| status(&engine, 0));
    }
    progress.finish(&status(&engine, usize::from(found.is_some())));
    let executions = engine.executions();
    let ended_by = if budget.runs.is_some_and(|runs| executions >= runs) { Bound::Runs } else { Bound::Seconds };
    Ok(found.ok_or(Survived { executions, ended_by }))
}

fn keep(target: &mut dyn Target, mut run: Lockstep, alone: bool, found: &Found) -> Result<Caught, TargetError> {
    let smaller = shrink(target, &mut run, found)?;
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_campaign_that_finds_nothing_says_what_ended_it() {
        let stop = AtomicBool::new(false);
        let mut opened = registry::open(registry::DEFAULT).expect("a target");
        let mut hunt_for = |seconds| {
            let setting = Setting { runs: 3, seconds, seeds: vec![1], stop: &stop };
            let meant = Law::from(("progress", "retry"));
            let hunt = hunt("M00-example", opened.target.as_mut(), &meant, 1, &setting).expect("a hunt");
            hunt.and_then(|hunt| hunt.survived)
        };
        assert_eq!(hunt_for(None), Some(Survived { executions: 3, ended_by: Bound::Runs }));
        assert_eq!(hunt_for(Some(0)), Some(Survived { executions: 0, ended_by: Bound::Seconds }));
    }

    #[test]
    fn of_a_hunt_that_ctrl_c_came_upon_nothing_is_known() {
        let stop = AtomicBool::new(true);
        let mut opened = registry::open(registry::DEFAULT).expect("a target");
        let setting = Setting { runs: 3, seconds: None, seeds: vec![1], stop: &stop };
        let quarry = Catalogue::of(registry::DEFAULT).expect("a catalogue").mutants.remove(0);
        assert!(row(&quarry, opened.target.as_mut(), &setting).expect("a row").hunts.is_empty());
    }

    #[test]
    fn a_spread_has_the_lower_middle() {
        assert_eq!(Spread::of([4, 1, 3, 2].into_iter()), Some(Spread { min: 1, median: 2, max: 4 }));
        assert_eq!(Spread::of(std::iter::empty()), None);
    }
}
