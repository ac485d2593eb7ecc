//! The architecture as checks: each rule finds its breaches in the sources, and each is shown to find one by its own test.

mod addresses;
mod edges;
mod links;
mod paths;
mod reachable;
mod top_level;
mod unsafe_code;

use crate::gate::{Gate, Halt, Verdict};
use crate::tree::Tree;

/// A place that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Breach {
    /// The file.
    pub(crate) path: String,
    /// The line, from 1; 0 for the file as a whole.
    pub(crate) line: usize,
    /// What stands there.
    pub(crate) found: String,
}

impl Breach {
    fn new(path: &str, line: usize, found: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, found: found.into() }
    }
}

/// One rule about the sources.
struct Rule {
    name: &'static str,
    /// What is right.
    law: &'static str,
    breaches: fn(&Tree) -> Vec<Breach>,
}

const RULES: [Rule; 7] = [
    Rule { name: "addresses", law: addresses::LAW, breaches: addresses::breaches },
    Rule { name: "unsafe", law: unsafe_code::LAW, breaches: unsafe_code::breaches },
    Rule { name: "lints", law: unsafe_code::LINTS_LAW, breaches: unsafe_code::crates_without_lints },
    Rule { name: "reachable", law: reachable::LAW, breaches: reachable::breaches },
    Rule { name: "top-level", law: top_level::LAW, breaches: top_level::breaches },
    Rule { name: "links", law: links::LAW, breaches: links::breaches },
    Rule { name: "paths", law: paths::LAW, breaches: paths::breaches },
];

/// The rules in words, with every file that one leaves alone and why.
pub(crate) fn list() -> String {
    let rules = RULES.iter().map(|rule| (rule.name, rule.law)).chain([("edges", edges::LAW)]);
    let rules = rules.map(|(name, law)| format!("{name:<12} {law}"));
    let files = addresses::EXCEPTIONS.iter().map(|(path, reason)| format!("  {path}: {reason}"));
    let excepted = ["excepted from addresses:".to_owned()].into_iter().chain(files);
    rules.chain(excepted).collect::<Vec<_>>().join("\n")
}

/// The stage: every rule, every breach.
pub(crate) fn check(gate: &Gate) -> Verdict {
    let tree = gate.tree()?;
    let mut report: Vec<String> =
        RULES.iter().filter_map(|rule| describe(rule.name, rule.law, &(rule.breaches)(&tree))).collect();
    report.extend(describe("edges", edges::LAW, &edges::breaches(gate)?));
    if report.is_empty() { Ok(format!("{} rules", RULES.len() + 1)) } else { Err(Halt::failed(report.join("\n"))) }
}

fn describe(name: &str, law: &str, breaches: &[Breach]) -> Option<String> {
    if breaches.is_empty() {
        return None;
    }
    let places = breaches.iter().map(|Breach { path, line, found }| match line {
        0 => format!("  {path}: {found}"),
        line => format!("  {path}:{line}: {found}"),
    });
    Some(std::iter::once(format!("rule {name}: {law}")).chain(places).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breach_is_reported_with_rule_law_and_place() {
        let breaches = [Breach::new("a.rs", 3, "`x`"), Breach::new("b.rs", 0, "not there")];
        let text = describe("some", "do it so.", &breaches).unwrap();
        assert_eq!(text, "rule some: do it so.\n  a.rs:3: `x`\n  b.rs: not there");
        assert_eq!(describe("some", "do it so.", &[]), None);
    }
}
