//! What the tests of the corpus share: reading programs, and judging them on a policy given by name.

use gpa_model::{Mmu, Program, Vm, text};
use gpa_oracles::{Lockstep, Violation};
use kvm_mmu::mutants::{Mutant, Visitor, visit_named};
use kvm_mmu::{Corrected, EptNoAd, KvmMmu, Npt, RfcV3};
use std::path::{Path, PathBuf};

/// The folder `name` of the corpus.
pub(crate) fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus").join(name)
}

/// The programs of a folder of the corpus, by name.
pub(crate) fn programs(folder: &str) -> Vec<(String, Program)> {
    let dir = corpus(folder);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "prog"))
        .collect();
    paths.sort();
    paths.iter().map(|path| (stem(path), parse(path))).collect()
}

fn stem(path: &Path) -> String {
    path.file_stem().expect("a file name").to_string_lossy().into_owned()
}

fn parse(path: &Path) -> Program {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text::parse(&text).unwrap_or_else(|e| panic!("{}:{e}", path.display()))
}

/// The targets that break no law.
pub(crate) const CLEAN: [&str; 3] = ["kvm-mmu", "kvm-mmu-no-ad", "kvm-mmu-npt"];

/// The report and verdict of `program` on `target`: one of [`CLEAN`], `rfc-v3` or `mutant:NAME`.
pub(crate) fn judge(target: &str, program: &Program) -> (String, Option<Violation>) {
    struct Judge<'a>(&'a str, &'a Program, Option<(String, Option<Violation>)>);
    impl Visitor for Judge<'_> {
        fn visit<M: Mmu + 'static>(&mut self, _: &Mutant) {
            self.2 = Some(judge_on::<M>(self.0, self.1));
        }
    }
    match target {
        "kvm-mmu" => judge_on::<KvmMmu>(target, program),
        "kvm-mmu-no-ad" => judge_on::<KvmMmu<Corrected, EptNoAd>>(target, program),
        "kvm-mmu-npt" => judge_on::<KvmMmu<Corrected, Npt>>(target, program),
        "rfc-v3" => judge_on::<KvmMmu<RfcV3>>(target, program),
        _ => {
            let name = target.strip_prefix("mutant:").unwrap_or_else(|| panic!("no target is called {target}"));
            let judged = visit_named(name, Judge(target, program, None));
            judged.and_then(|judge| judge.2).unwrap_or_else(|| panic!("no mutant is called {name}"))
        }
    }
}

fn judge_on<M: Mmu>(target: &str, program: &Program) -> (String, Option<Violation>) {
    gpa_oracles::report(&mut Lockstep::default(), &mut M::new(&Vm::default()), program, target)
}

/// Where a program says it is bad, from its comment: target, oracle and clause.
pub(crate) fn bad_on(program: &Program) -> Option<(&str, &str)> {
    program.comment.iter().find_map(|line| line.strip_prefix("bad on ")?.split_once(": "))
}
