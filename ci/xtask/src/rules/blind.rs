//! The judged cannot see the judge: a target that could ask the model what is right would always be.

use super::{Breach, Exception, is_excepted};
use crate::tokens::{begins, without_tests};
use crate::tree::Tree;

pub(super) const LAW: &str = "no source of a target mentions the reference model or the oracles; a target gets its VmConfig, Host and \
                              ops through the Mmu trait. Tests belong to the target's tests folder.";

/// Files that may look at the reference model all the same.
pub(super) const EXCEPTIONS: &[Exception] = &[Exception::new(
    "targets/kvm-ko/src/serve.rs",
    "leaves out what means nothing, as the run does that judges; it judges nothing",
)];

pub(super) fn breaches(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let judged = |path: &&str| path.starts_with("targets/") && path.contains("/src/") && !is_excepted(EXCEPTIONS, path);
    for (path, tokens) in tree.sources().filter(|(path, _)| judged(path)) {
        let tokens = without_tests(&tokens);
        for (at, token) in tokens.iter().enumerate() {
            let module = begins(&tokens[at..], "model : :");
            if token.is("Model") || token.is("gpa_oracles") || module {
                breaches.push(Breach::new(path, token.line, format!("`{}`", token.word().unwrap_or_default())));
            }
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, source: &str) -> usize {
        breaches(&Tree::of(&[(path, source)])).len()
    }

    #[test]
    fn a_target_that_looks_at_the_judge_is_caught() {
        for bad in [
            "use gpa_model::Model;",
            "use gpa_model::{Gpa, Model, VmConfig};",
            "use gpa_model::model::Entitled;",
            "fn f(r: gpa_oracles::Lockstep) {}",
            "use gpa_model::*; struct S { m: Model }",
        ] {
            assert_eq!(found("targets/kvm-mmu/src/x.rs", bad), 1, "{bad}");
        }
    }

    #[test]
    fn its_tests_and_comments_may() {
        assert_eq!(found("targets/kvm-mmu/src/x.rs", "use gpa_model::{Gpa, VmConfig}; // not Model"), 0);
        assert_eq!(found("targets/kvm-mmu/src/x.rs", "#[cfg(test)] mod tests { use gpa_oracles::Lockstep; }"), 0);
        assert_eq!(found("targets/kvm-mmu/tests/x.rs", "use gpa_model::Model;"), 0);
    }
}
