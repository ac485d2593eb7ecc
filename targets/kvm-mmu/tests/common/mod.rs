//! What the tests of the corpus share: reading programs, and judging them on a policy given by name.

use gpa_model::{Mmu, Program, text};
use gpa_oracles::{Lockstep, Violation};
use kvm_mmu::mutants;
use kvm_mmu::{Corrected, DirectMirror, EptNoAd, KvmMmu, Npt, RfcV3};
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
pub(crate) const CLEAN: [&str; 4] = ["kvm-mmu", "kvm-mmu-no-ad", "kvm-mmu-npt", "tdp-mmu"];

/// The report and verdict of `program` on `target`: one of [`CLEAN`], `rfc-v3` or `mutant:NAME`.
pub(crate) fn judge(target: &str, program: &Program) -> (String, Option<Violation>) {
    let mut mmu: Box<dyn Mmu> = match target {
        "kvm-mmu" => Box::new(KvmMmu::<Corrected>::default()),
        "kvm-mmu-no-ad" => Box::new(KvmMmu::<Corrected, EptNoAd>::default()),
        "kvm-mmu-npt" => Box::new(KvmMmu::<Corrected, Npt>::default()),
        "tdp-mmu" => Box::new(KvmMmu::<DirectMirror>::default()),
        "rfc-v3" => Box::new(KvmMmu::<RfcV3>::default()),
        _ => {
            let name = target.strip_prefix("mutant:").unwrap_or_else(|| panic!("no target is called {target}"));
            mutants::named(name).unwrap_or_else(|| panic!("no mutant is called {name}")).mmu()
        }
    };
    gpa_oracles::report(&mut Lockstep::default(), &mut mmu, program, target)
}

/// Where a program says it is bad, from its comment: target, oracle and clause.
pub(crate) fn bad_on(program: &Program) -> Option<(&str, &str)> {
    program.comment.iter().find_map(|line| line.strip_prefix("bad on ")?.split_once(": "))
}
