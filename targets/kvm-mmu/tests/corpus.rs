//! Every program of the corpus, on every policy it speaks of.
//!
//! A `good_` program shows a law at work and is clean. A `bad_` program and a regression say in their comment on which
//! target which clause objects; there it must, and on the corrected designs it must not.

mod common;

use common::{CLEAN, bad_on, judge, programs};
use gpa_model::Program;
use kvm_mmu::mutants;

#[test]
fn seeds_are_clean_on_the_corrected_design() {
    for folder in ["seeds", "regressions"] {
        for (name, program) in programs(folder) {
            for target in CLEAN {
                let (report, violation) = judge(target, &program);
                assert!(violation.is_none(), "{folder}/{name}\n{report}");
                assert!(
                    !report.contains("skipped: means nothing"),
                    "{folder}/{name} has ops that mean nothing\n{report}"
                );
            }
        }
    }
}

#[test]
fn bad_programs_are_objected_to_as_they_say() {
    for folder in ["seeds", "regressions"] {
        for (name, program) in programs(folder) {
            let Some((target, law)) = bad_on(&program) else {
                assert!(folder == "seeds" && !name.starts_with("bad_"), "{folder}/{name} does not say where it is bad");
                continue;
            };
            let (report, violation) = judge(target, &program);
            let violation = violation.unwrap_or_else(|| panic!("{folder}/{name} is clean on {target}\n{report}"));
            let signature = violation.signature;
            assert_eq!(format!("{}/{}", signature.oracle, signature.clause), law, "{folder}/{name}\n{report}");
        }
    }
}

#[test]
fn every_mutant_has_a_regression() {
    let regressions = programs("regressions");
    for mutant in mutants::ALL {
        let (_, program) = regressions.iter().find(|(name, _)| name == mutant.name).unwrap_or_else(|| {
            panic!("corpus/regressions/{}.prog is missing; see examples/write_regressions.rs", mutant.name)
        });
        let (oracle, clause) = mutant.caught_by;
        let (target, law) = (format!("mutant:{}", mutant.name), format!("{oracle}/{clause}"));
        assert_eq!(bad_on(program), Some((target.as_str(), law.as_str())), "{}", mutant.name);
        assert!(program.ops.len() <= 10, "{} is not minimal", mutant.name);
    }
}

#[test]
fn reports_of_the_seeds() {
    for (name, program) in programs("seeds") {
        insta::assert_snapshot!(name.as_str(), judge(shown_on(&program), &program).0);
    }
}

/// On which target a program of the corpus shows what its comment says: where it is bad, or that which it names, or any.
fn shown_on(program: &Program) -> &str {
    let named = program.comment.iter().find_map(|line| line.strip_prefix("shown on "));
    bad_on(program).map(|(target, _)| target).or(named).unwrap_or("kvm-mmu")
}
