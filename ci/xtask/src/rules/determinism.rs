//! The core does the same thing twice: no clock, no randomness of its own, no hash map that is iterated in random order.

use super::{Breach, Exception, is_excepted};
use crate::tokens::{Token, begins, without_tests};
use crate::tree::Tree;

/// What prepares and launches machines and workers: it waits for them, and decides nothing that a program comes to.
const LAUNCHERS: [&str; 4] =
    ["targets/kernels/", "targets/kvm-ko/src/", "targets/kvm-ko/worker/src/main.rs", "targets/linux-kvm/"];

pub(super) const LAW: &str = "the core (model, oracles, targets) reads no clock, draws no randomness but what a caller passes \
                              in, and uses no hash map without a fixed hasher: same program, same trace, byte for byte.";

/// Files that may use a hash map, always with an explicit hasher.
pub(super) const HASH_MAPS: &[Exception] = &[];

/// Names that mean a clock, a source of randomness, or a hasher with a random key, wherever they come from.
const NEVER: [&str; 14] = [
    "Instant",
    "SystemTime",
    "UNIX_EPOCH",
    "RandomState",
    "DefaultHasher",
    "thread_rng",
    "ThreadRng",
    "OsRng",
    "SysRng",
    "from_entropy",
    "from_os_rng",
    "getrandom",
    "available_parallelism",
    "ThreadId",
];

/// The same as paths.
const NEVER_PATHS: [&str; 6] =
    ["std : : time", "core : : time", "rand : : rng", "rand : : random", "std : : env", "std : : thread"];

pub(super) fn breaches(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, tokens) in tree.sources().filter(|(path, _)| is_core(path)) {
        let tokens = without_tests(&tokens);
        for at in 0..tokens.len() {
            if let Some(found) = indeterminate(&tokens[at..], is_excepted(HASH_MAPS, path)) {
                breaches.push(Breach::new(path, tokens[at].line, format!("`{found}`")));
            }
        }
    }
    breaches
}

fn is_core(path: &str) -> bool {
    let folder = |name: &str| path.split_once("/src/").is_some_and(|(before, _)| before == name);
    let target = path.starts_with("targets/")
        && path.contains("/src/")
        && !LAUNCHERS.iter().any(|launcher| path.starts_with(launcher));
    (folder("model") || folder("oracles") || target) && !path.ends_with("/tests.rs")
}

fn indeterminate(tokens: &[Token], hash_maps: bool) -> Option<String> {
    if let Some(path) = NEVER_PATHS.into_iter().find(|path| begins(tokens, path)) {
        return Some(path.replace(' ', ""));
    }
    let word = tokens.first()?.word()?;
    let is_hash = word == "HashMap" || word == "HashSet";
    // `new` and `with_capacity` exist only with the randomly keyed hasher.
    let random_keys =
        ["new", "with_capacity", "default"].into_iter().any(|maker| begins(tokens, &format!("{word} : : {maker}")));
    (NEVER.contains(&word) || (is_hash && (random_keys || !hash_maps))).then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::tokens;

    fn found(path: &str, source: &str) -> usize {
        breaches(&Tree::of(&[(path, source)])).len()
    }

    #[test]
    fn clocks_randomness_and_hash_maps_are_caught_in_the_core() {
        for bad in [
            "use std::time::Duration;",
            "fn f() { let t = Instant::now(); }",
            "fn f() { rand::rng(); }",
            "fn f() { let r = thread_rng(); }",
            "struct S { m: HashMap<u8, u8> }",
            "use std::collections::HashSet;",
            "struct S(std::hash::RandomState);",
        ] {
            for path in ["model/src/x.rs", "oracles/src/x/y.rs", "targets/kvm-mmu/src/x.rs"] {
                assert_eq!(found(path, bad), 1, "{path}: {bad}");
            }
        }
    }

    #[test]
    fn tests_and_other_crates_may() {
        assert_eq!(found("model/src/x.rs", "#[cfg(test)]\nmod tests { use std::time::Instant; }"), 0);
        assert_eq!(found("model/tests/x.rs", "use std::time::Instant;"), 0);
        assert_eq!(found("ci/gpafuzz/src/x.rs", "use std::time::Instant;"), 0);
        assert_eq!(found("model/src/x.rs", "use rand::Rng; use std::collections::BTreeMap; // Instant"), 0);
    }

    #[test]
    fn an_exception_for_a_hash_map_is_none_for_random_keys() {
        let caught = |source: &str| indeterminate(&tokens(source), true).is_some();
        assert!(!caught("HashMap<u64, u32, Fixed>") && !caught("HashMap::with_hasher(Fixed)"));
        assert!(caught("HashMap::new()") && caught("RandomState"));
    }
}
