//! Every program of the corpus reads, prints back as it stands, says what it shows, and runs.
//!
//! It runs on an MMU that answers what the model says and keeps nothing: if an oracle objects to that, the oracle is wrong.
//! What the corpus shows of real targets is for their own tests.

use gpa_model::choices::FromRng;
use gpa_model::generate::{Generator, Profile};
use gpa_model::{Capabilities, Exit, FlushBackend, Gpa, Host, Mmu, Model, Op, Program, Spte, VmConfig, text};
use gpa_oracles::Lockstep;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use std::path::{Path, PathBuf};

/// Answers as the model would. Where it leaves a choice, `eager` takes the largest result and otherwise the smallest.
struct Ideal {
    model: Model,
    eager: bool,
}

impl Ideal {
    fn answer(&self, host: &Host, op: &Op) -> Exit {
        let allowed = self.model.clone().expect(host, op);
        let memory = allowed.memory.map(Exit::Memory);
        let emulated = allowed.emulated.map(Exit::Emulated);
        let mmio = allowed.mmio.map(Exit::Mmio);
        let dirty = allowed.dirty.map(|(must, may)| Exit::Dirty(if self.eager { may } else { must }));
        let translated = allowed.translated.map(Exit::Translated);
        let plain = [
            (allowed.pending && !self.eager, Exit::Pending),
            (allowed.retry && !self.eager, Exit::Retry),
            (allowed.done, Exit::Done),
            (allowed.not_found, Exit::NotFound),
            (allowed.ring_full, Exit::RingFull),
            (allowed.refused, Exit::Refused),
            (allowed.page_not_present && self.eager, Exit::PageNotPresent),
            (allowed.halted, Exit::Halted),
            (allowed.young, Exit::Young(self.eager)),
        ];
        let late = allowed.guest_fault.map_or(Exit::Retry, Exit::GuestFault);
        let late = [(allowed.guest_fault.is_some() || allowed.retry, late), (allowed.error, Exit::Error)];
        let pick = |list: &[(bool, Exit)]| list.iter().find(|(right, _)| *right).map(|(_, exit)| *exit);
        let ready = allowed.page_ready.first().map(|(gpa, _)| Exit::PageReady(*gpa));
        let data = [memory, emulated, mmio, dirty, translated, ready].into_iter().flatten().next();
        pick(&plain).or(data).or(pick(&late)).expect("the model always leaves an answer")
    }
}

impl Mmu for Ideal {
    fn reset(&mut self, vm: &VmConfig) {
        self.model = Model::new(vm);
    }

    fn step(&mut self, host: &Host, flush: &mut FlushBackend, op: &Op) -> Exit {
        let exit = self.answer(host, op);
        flush.all();
        self.model.step(host, op, &exit);
        exit
    }

    fn walk(&self, _: Gpa) -> Option<Spte> {
        None
    }

    /// There are no tables to show, so the exits are judged, and nothing else.
    fn capabilities(&self) -> Capabilities {
        Capabilities { flushes: true, refuses_aliased_prefault: true, ..Capabilities::EXITS }
    }
}

fn files(folder: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(folder);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("corpus/{folder}: {error}"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "corpus/{folder} is empty");
    paths
}

fn programs() -> Vec<(PathBuf, String, Program)> {
    let paths = ["seeds", "regressions"].into_iter().flat_map(files);
    paths
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let program = text::parse(&text).unwrap_or_else(|error| panic!("{}:{error}", path.display()));
            (path, text, program)
        })
        .collect()
}

#[test]
fn every_program_prints_back_as_it_stands() {
    for (path, text, program) in programs() {
        assert!(path.extension().is_some_and(|end| end == "prog"), "{} is no program", path.display());
        assert_eq!(text::print(&program), text, "{}", path.display());
        assert_eq!(program.check(), Ok(()), "{}", path.display());
    }
}

#[test]
fn every_program_opens_with_what_it_shows() {
    for (path, _, program) in programs() {
        let first = program.comment.first().map_or("", |line| line.trim());
        assert!(!first.is_empty(), "{} does not say what it shows", path.display());
        assert!(!program.ops.is_empty(), "{} does nothing", path.display());
    }
}

#[test]
fn no_oracle_objects_to_the_model_itself_on_the_corpus() {
    let mut run = Lockstep::default();
    for eager in [false, true] {
        let mut ideal = Ideal { eager, model: Model::new(&VmConfig::default()) };
        for (path, _, program) in programs() {
            let violation = run.run(&mut ideal, &program);
            assert!(violation.is_none(), "{}: {}", path.display(), violation.unwrap());
        }
    }
    assert!(run.counts().judged > 100, "{:?}", run.counts());
}

#[test]
fn no_oracle_objects_to_the_model_itself_on_random_programs() {
    let generator = Generator::new(Profile::default());
    let mut run = Lockstep::default();
    let mut program = Program::default();
    for eager in [false, true] {
        let mut ideal = Ideal { eager, model: Model::new(&VmConfig::default()) };
        for seed in 0..3000 {
            generator.program(&mut FromRng(Xoshiro256PlusPlus::seed_from_u64(seed)), &mut program);
            if let Some(violation) = run.run(&mut ideal, &program) {
                let (report, _) = gpa_oracles::report(&mut run, &mut ideal, &program, "the model itself");
                panic!("seed {seed}: {violation}\n{report}");
            }
        }
    }
}
