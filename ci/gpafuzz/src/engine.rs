//! The fuzzing engine: every type of LibAFL that this project uses. No other file names one.
//!
//! Inputs are typed programs, never bytes. Program number *n* of a seed is generated from the seed and *n* alone, so a campaign can be
//! split among jobs, stopped and resumed without changing what it runs. Lengths are mixed: of 120 mutants, generation from these
//! `LENGTHS` needs 0.65 of the executions that programs of at most 48 ops need (geometric mean, 20 seeds); mutating a corpus guided by
//! feature cells needs 4.3 times as many. `gpafuzz teeth --seeds 20 --json` prints the executions.
//!
//! A corpus exists only for a target that shows which blocks of its code a program executes. A program that executes a new block
//! joins it, unless an oracle objected: what follows a violation was not judged. Mutants of it run beside generated programs.
//!
//! This file reads no clock and no file, and installs no signal handler. Only the [`Budget`] looks at the time, and it decides
//! nothing but when to stop.

use crate::target::{RunRecord, Target, TargetError};
use gpa_model::choices::Choices;
use gpa_model::generate::{Generator, Profile};
use gpa_model::{Program, text};
use gpa_oracles::{Lockstep, Signature, Violation, features::CELLS};
use libafl::corpus::{Corpus, CorpusId, HasCurrentCorpusId, InMemoryCorpus};
use libafl::events::NopEventManager;
use libafl::executors::{Executor, ExitKind, HasObservers};
use libafl::feedbacks::{ConstFeedback, Feedback, StateInitializer};
use libafl::inputs::{BytesInputConverter, Input};
use libafl::observers::Observer;
use libafl::schedulers::QueueScheduler;
use libafl::stages::{Restartable, Stage};
use libafl::state::{HasCorpus, HasExecutions, HasRand, StdState};
use libafl::{Evaluator, Fuzzer, NopInputFilter, StdFuzzer};
use libafl_bolts::Named;
use libafl_bolts::rands::{Rand, StdRand};
use libafl_bolts::tuples::RefIndexable;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Ops of a generated program, at most: each program draws one of these. A target whose [`Profile`] allows fewer gets fewer.
const LENGTHS: [u32; 3] = [48, 96, 200];
/// Generated programs that a round runs.
const ROUND: u64 = 16;
/// Mutants of one corpus entry that a round runs where there is a corpus.
const MUTANTS: u32 = 48;

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub struct Budget<'a> {
    /// After so many executions.
    pub runs: Option<u64>,
    /// At this time.
    pub deadline: Option<Instant>,
    /// When this is set.
    pub stop: &'a AtomicBool,
}

impl Budget<'_> {
    /// Whether a campaign that has run so many programs ends.
    pub fn is_spent(&self, executions: u64) -> bool {
        self.stop.load(Ordering::Relaxed)
            || self.runs.is_some_and(|runs| executions >= runs)
            || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// The first program that broke a law in its way.
#[derive(Clone, Debug)]
pub struct Found {
    /// The program.
    pub program: Program,
    /// What an oracle said.
    pub violation: Violation,
    /// Which execution it was, from 1: without a corpus the number of the program plus 1.
    pub execution: u64,
    /// What the target did.
    pub seen: RunRecord,
}

/// What runs the programs of a seed on one target.
pub struct Engine<'a> {
    fuzzer: StdFuzzer<QueueScheduler, Novelty, BytesInputConverter, NopInputFilter, ConstFeedback>,
    state: State,
    judge: Judge<'a>,
    stages: (Mutate, ()),
    seed: u64,
    generators: [Generator; LENGTHS.len()],
    case: Case,
    /// The number of the next program that [`Engine::round`] generates.
    next: u64,
    /// The only programs that the target can run, if it cannot run any.
    recorded: Option<Vec<Program>>,
}

impl<'a> Engine<'a> {
    /// An engine for `target`, judged by `run`; everything but when it ends follows from `seed`.
    ///
    /// # Errors
    /// If LibAFL refuses its parts.
    pub fn new(target: &'a mut dyn Target, run: Lockstep, seed: u64, budget: Budget<'a>) -> Result<Self, TargetError> {
        Self::with_guidance(target, run, seed, budget, true)
    }

    /// The same; the target's blocks are collected, but a new one is no reason to keep a program unless `guided`.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn with_guidance(
        target: &'a mut dyn Target,
        run: Lockstep,
        seed: u64,
        budget: Budget<'a>,
        guided: bool,
    ) -> Result<Self, TargetError> {
        let profile = target.profile();
        let recorded = target.recorded();
        let (mut novelty, mut never) = (Novelty { guided, ..Novelty::default() }, ConstFeedback::new(false));
        let corpus = (InMemoryCorpus::new(), InMemoryCorpus::new());
        let rand = StdRand::with_seed(seed);
        let state = StdState::new(rand, corpus.0, corpus.1, &mut novelty, &mut never).map_err(library)?;
        let judge = Judge {
            target,
            run,
            reached: (Reached::default(), ()),
            budget,
            number: None,
            signatures: BTreeSet::new(),
            found: Vec::new(),
            recorder: None,
            failed: None,
        };
        let mutate = Mutate { generator: Generator::new(profile), base: Case::default(), mutant: Case::default() };
        let fuzzer = StdFuzzer::new(QueueScheduler::new(), novelty, never);
        let generators = generators(profile);
        let case = Case::default();
        Ok(Self { fuzzer, state, judge, stages: (mutate, ()), seed, generators, case, next: 0, recorded })
    }

    /// The same; what is generated from now on is for VMs of exactly so many vCPUs, if a number is given.
    pub fn with_vcpus(mut self, vcpus: Option<u8>) -> Self {
        let profile = Profile { vcpus, ..self.judge.target.profile() };
        self.generators = generators(profile);
        self.stages.0.generator = Generator::new(profile);
        self
    }

    /// Keep a copy of every program that is run from now on.
    pub fn record(&mut self) {
        self.judge.recorder = Some(Vec::new());
    }

    /// The programs run since [`Engine::record`].
    pub fn recording(self) -> Vec<Program> {
        self.judge.recorder.unwrap_or_default()
    }

    /// How many programs there are at all, where the target answers from a record.
    pub fn recorded_len(&self) -> Option<u64> {
        self.recorded.as_ref().map(|recorded| recorded.len() as u64)
    }

    /// Whether the budget is spent, or there is nothing left to run.
    pub fn is_done(&self) -> bool {
        let nothing_left = self.recorded_len().is_some_and(|len| self.next >= len);
        nothing_left || self.judge.budget.is_spent(self.executions())
    }

    /// Run the next few programs, or fewer if the budget ends.
    ///
    /// # Errors
    /// If the target fails.
    pub fn round(&mut self) -> Result<(), TargetError> {
        for _ in 0..ROUND {
            if self.is_done() {
                return Ok(());
            }
            let number = self.next;
            self.next += 1;
            self.programs(number..number + 1)?;
        }
        self.mutants()
    }

    /// Run the generated programs of these numbers, whatever the budget says. On a target that answers from a record they are the
    /// numbers of its programs.
    ///
    /// # Errors
    /// If the target fails.
    pub fn programs(&mut self, numbers: Range<u64>) -> Result<(), TargetError> {
        let mut manager = NopEventManager::new();
        for number in numbers {
            match &self.recorded {
                Some(recorded) => match recorded.get(number as usize) {
                    Some(program) => self.case.copy(program),
                    None => return Ok(()),
                },
                None => generate(&self.generators, self.seed, number, &mut self.case.0),
            }
            self.judge.number = Some(number);
            let done = self.fuzzer.evaluate_input(&mut self.state, &mut self.judge, &mut manager, &self.case);
            self.judge.outcome(done.map(|_| ()))?;
        }
        Ok(())
    }

    /// Run mutants of one program of the corpus, if there is one.
    ///
    /// # Errors
    /// If the target fails.
    pub fn mutants(&mut self) -> Result<(), TargetError> {
        if self.corpus_len() == 0 {
            return Ok(());
        }
        self.judge.number = None;
        let Self { fuzzer, state, judge, stages, .. } = self;
        let done = fuzzer.fuzz_one(stages, judge, state, &mut NopEventManager::new());
        judge.outcome(done.map(|_| ()))
    }

    /// The findings since the last call, of which no two have the same signature.
    pub fn take_found(&mut self) -> Vec<Found> {
        std::mem::take(&mut self.judge.found)
    }

    /// The target.
    pub fn target(&mut self) -> &mut dyn Target {
        self.judge.target
    }

    /// Programs run so far.
    pub fn executions(&self) -> u64 {
        *self.state.executions()
    }

    /// What was judged, with its counts.
    pub fn run(&self) -> &Lockstep {
        &self.judge.run
    }

    /// Programs in the corpus.
    pub fn corpus_len(&self) -> usize {
        self.state.corpus().count()
    }

    /// The feature cells reached by a program without an objection, ascending.
    pub fn cells(&self) -> impl Iterator<Item = u16> {
        let seen = &self.fuzzer_feedback().seen;
        (0..=u16::MAX).filter(|cell| seen[usize::from(*cell) / 64] >> (cell % 64) & 1 != 0)
    }

    /// How many feature cells those are.
    pub fn cell_count(&self) -> usize {
        self.fuzzer_feedback().count
    }

    /// Blocks of the target executed by a program without an objection, ascending.
    pub fn blocks(&self) -> &BTreeSet<u32> {
        &self.fuzzer_feedback().blocks
    }

    fn fuzzer_feedback(&self) -> &Novelty {
        libafl::HasFeedback::feedback(&self.fuzzer)
    }
}

impl std::fmt::Debug for Engine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("executions", &self.executions()).finish_non_exhaustive()
    }
}

/// One generator for each of the [`LENGTHS`].
fn generators(profile: Profile) -> [Generator; LENGTHS.len()] {
    LENGTHS.map(|length| Generator::new(Profile { ops_max: profile.ops_max.min(length), ..profile }))
}

/// The first programs that an engine generates from `seed` for a target of this profile.
pub fn first_programs(profile: Profile, vcpus: Option<u8>, seed: u64) -> impl Iterator<Item = Program> {
    let generators = generators(Profile { vcpus, ..profile });
    (0..ROUND).map(move |number| {
        let mut program = Program::default();
        generate(&generators, seed, number, &mut program);
        program
    })
}

/// Program `number` of `seed`.
fn generate(generators: &[Generator], seed: u64, number: u64, program: &mut Program) {
    // The golden ratio spreads consecutive numbers over all seeds of the random generator (Knuth, TAOCP 6.4).
    let mut rand = StdRand::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut draw = Draw(&mut rand);
    let length = draw.below(generators.len() as u32) as usize;
    generators[length].program(&mut draw, program);
}

type State = StdState<InMemoryCorpus<Case>, Case, StdRand, InMemoryCorpus<Case>>;

#[expect(clippy::needless_pass_by_value, reason = "used as a function to map errors with")]
fn library(error: libafl::Error) -> TargetError {
    TargetError::Failed(format!("the fuzzing engine: {error}"))
}

/// A program as LibAFL wants its inputs. It is never hashed or serialised in a campaign; where the traits demand a way,
/// it is the text, which means the same in every version.
#[derive(Clone, Debug, Default)]
struct Case(Program);

impl Case {
    /// Become a copy of `other`, keeping allocations.
    fn copy(&mut self, other: &Program) {
        self.0.vm = other.vm;
        self.0.ops.clone_from(&other.ops);
        self.0.comment.clear();
    }
}

impl Input for Case {
    fn generate_name(&self, id: Option<CorpusId>) -> String {
        id.map_or_else(|| "new".to_owned(), |id| id.to_string())
    }
}

impl Hash for Case {
    fn hash<H: Hasher>(&self, state: &mut H) {
        text::print(&self.0).hash(state);
    }
}

impl Serialize for Case {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text::print(&self.0))
    }
}

impl<'de> Deserialize<'de> for Case {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let printed = String::deserialize(deserializer)?;
        text::parse(&printed).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Decisions drawn from LibAFL's seeded generator.
struct Draw<'a>(&'a mut StdRand);

impl Choices for Draw<'_> {
    fn below(&mut self, n: u32) -> u32 {
        (((self.0.next() >> 32) * u64::from(n)) >> 32) as u32
    }
}

/// The executor: one program, one verdict.
struct Judge<'a> {
    target: &'a mut dyn Target,
    run: Lockstep,
    reached: (Reached, ()),
    budget: Budget<'a>,
    /// The number of the program that runs, if it was generated and there is no corpus.
    number: Option<u64>,
    signatures: BTreeSet<Signature>,
    found: Vec<Found>,
    recorder: Option<Vec<Program>>,
    failed: Option<TargetError>,
}

impl Judge<'_> {
    /// What LibAFL's answer means: a failure of the target comes first.
    fn outcome(&mut self, done: Result<(), libafl::Error>) -> Result<(), TargetError> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => done.map_err(library),
        }
    }
}

impl<EM, Z> Executor<EM, Case, State, Z> for Judge<'_> {
    fn run_target(&mut self, _: &mut Z, state: &mut State, _: &mut EM, case: &Case) -> Result<ExitKind, libafl::Error> {
        *state.executions_mut() += 1;
        if let Some(recorder) = &mut self.recorder {
            recorder.push(case.0.clone());
        }
        let violation = match self.target.judge(&mut self.run, &case.0) {
            Ok(violation) => violation,
            Err(error) => {
                self.failed = Some(error);
                return Err(libafl::Error::shutting_down());
            }
        };
        let Some(violation) = violation else {
            self.reached.0.cells.clear();
            self.reached.0.cells.extend_from_slice(self.run.features().cells());
            self.reached.0.blocks.clear();
            self.reached.0.blocks.extend_from_slice(self.target.blocks());
            return Ok(ExitKind::Ok);
        };
        if self.signatures.insert(violation.signature) {
            let execution = match self.number {
                Some(number) if state.corpus().count() == 0 => number + 1,
                _ => *state.executions(),
            };
            let (program, seen) = (case.0.clone(), RunRecord::of(self.target));
            self.found.push(Found { program, violation, execution, seen });
        }
        Ok(ExitKind::Crash)
    }
}

impl HasObservers for Judge<'_> {
    type Observers = (Reached, ());

    fn observers(&self) -> RefIndexable<&Self::Observers, Self::Observers> {
        RefIndexable::from(&self.reached)
    }

    fn observers_mut(&mut self) -> RefIndexable<&mut Self::Observers, Self::Observers> {
        RefIndexable::from(&mut self.reached)
    }
}

/// The feature cells of the last program, and the blocks of the target that it executed: short lists, where dense maps would cost
/// more than the run.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Reached {
    cells: Vec<u16>,
    blocks: Vec<u32>,
}

impl Named for Reached {
    fn name(&self) -> &Cow<'static, str> {
        &Cow::Borrowed("reached")
    }
}

impl Observer<Case, State> for Reached {}

/// The feedback: has this program executed a block that none has executed before? It also notes the feature cells, for the summary.
#[derive(Debug)]
struct Novelty {
    seen: Box<[u64; CELLS / 64]>,
    count: usize,
    blocks: BTreeSet<u32>,
    /// Whether blocks count.
    guided: bool,
}

impl Default for Novelty {
    fn default() -> Self {
        Self { seen: Box::new([0; CELLS / 64]), count: 0, blocks: BTreeSet::new(), guided: true }
    }
}

impl Named for Novelty {
    fn name(&self) -> &Cow<'static, str> {
        &Cow::Borrowed("novelty")
    }
}

impl StateInitializer<State> for Novelty {}

impl<EM> Feedback<EM, Case, (Reached, ()), State> for Novelty {
    fn is_interesting(
        &mut self,
        _: &mut State,
        _: &mut EM,
        _: &Case,
        (reached, ()): &(Reached, ()),
        exit: &ExitKind,
    ) -> Result<bool, libafl::Error> {
        if *exit != ExitKind::Ok {
            return Ok(false);
        }
        for cell in &reached.cells {
            let (word, bit) = (&mut self.seen[usize::from(*cell) / 64], 1 << (cell % 64));
            self.count += usize::from(*word & bit == 0);
            *word |= bit;
        }
        let blocks = self.blocks.len();
        self.blocks.extend(&reached.blocks);
        Ok(self.guided && self.blocks.len() > blocks)
    }
}

/// The stage that runs mutants of the current corpus entry.
struct Mutate {
    generator: Generator,
    base: Case,
    mutant: Case,
}

impl<'a, EM, Z: Evaluator<Judge<'a>, EM, Case, State>> Stage<Judge<'a>, EM, State, Z> for Mutate {
    fn perform(
        &mut self,
        fuzzer: &mut Z,
        judge: &mut Judge<'a>,
        state: &mut State,
        manager: &mut EM,
    ) -> Result<(), libafl::Error> {
        let Some(id) = state.current_corpus_id()? else { return Ok(()) };
        copy_entry(state, id, &mut self.base)?;
        for _ in 0..MUTANTS {
            if judge.budget.is_spent(*state.executions()) {
                break;
            }
            self.mutant.copy(&self.base.0);
            let mut rand = *state.rand();
            let other = Draw(&mut rand).below(state.corpus().count() as u32) as usize;
            if let Some(other) = state.corpus().get(state.corpus().nth(other))?.borrow().input() {
                self.generator.mutate(&mut Draw(&mut rand), &mut self.mutant.0, &other.0);
            }
            *state.rand_mut() = rand;
            fuzzer.evaluate_input(state, judge, manager, &self.mutant)?;
        }
        Ok(())
    }
}

fn copy_entry(state: &State, id: CorpusId, to: &mut Case) -> Result<(), libafl::Error> {
    let entry = state.corpus().get(id)?.borrow();
    if let Some(case) = entry.input() {
        to.copy(&case.0);
    }
    Ok(())
}

/// Nothing here survives a crash of the process, so nothing is ever restarted.
impl Restartable<State> for Mutate {
    fn should_restart(&mut self, _: &mut State) -> Result<bool, libafl::Error> {
        Ok(true)
    }

    fn clear_progress(&mut self, _: &mut State) -> Result<(), libafl::Error> {
        Ok(())
    }
}
