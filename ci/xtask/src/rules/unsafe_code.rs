//! Unsafe code lives in modules that exist to hold it, and say so before anything else.

use super::Breach;
use crate::tokens::{Kind, Token, begins};
use crate::tree::Tree;

pub(super) const LAW: &str = "`unsafe` stands only in files that open, after the module doc, with \
                              `#![expect(unsafe_code, reason = \"…\")]`; no other place lifts the lint.";
pub(super) const LINTS_LAW: &str = "every crate takes the workspace's lints: `[lints]` with `workspace = true`.";

pub(super) fn breaches(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, tokens) in tree.sources() {
        let body = match opening(&tokens) {
            Some(length) => &tokens[length..],
            None => &tokens[..],
        };
        let may = body.len() < tokens.len();
        for (at, token) in body.iter().enumerate() {
            if token.is("unsafe") && !may {
                breaches.push(Breach::new(path, token.line, "`unsafe` in a file that does not open so"));
            }
            if token.is("unsafe_code") && lifted(&body[..at]) {
                breaches.push(Breach::new(path, token.line, "`unsafe_code` is lifted here"));
            }
        }
    }
    breaches
}

/// How many tokens the opening attribute takes, if the file has it and it gives a reason.
fn opening(tokens: &[Token]) -> Option<usize> {
    let opens = begins(tokens, "# ! [ expect ( unsafe_code , reason = _ ) ]");
    let reason = tokens.iter().find_map(|token| match &token.kind {
        Kind::Text(text) => Some(text),
        _ => None,
    });
    (opens && reason.is_some_and(|reason| !reason.trim().is_empty())).then_some(12)
}

/// Whether the attribute that is open at the end of `before` is `allow`, `expect` or `warn`.
fn lifted(before: &[Token]) -> bool {
    let start = before.iter().rposition(|token| token.is_sign('[')).unwrap_or(0);
    before[start..].iter().any(|token| ["allow", "expect", "warn"].into_iter().any(|word| token.is(word)))
}

/// Crates that would not notice `unsafe`, because they do not take the lint table.
pub(super) fn crates_without_lints(tree: &Tree) -> Vec<Breach> {
    let manifests = tree.files().filter(|(path, _)| path.ends_with("Cargo.toml"));
    let crates = manifests.filter(|(_, text)| text.lines().any(|line| line.trim() == "[package]"));
    let without = crates.filter(|(_, text)| {
        let mut lines = text.lines().map(str::trim).skip_while(|line| *line != "[lints]").skip(1);
        !lines.any(|line| line == "workspace = true")
    });
    without.map(|(path, _)| Breach::new(path, 0, "no `[lints]` with `workspace = true`")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(source: &str) -> usize {
        breaches(&Tree::of(&[("hw-runner/src/x.rs", source)])).len()
    }

    #[test]
    fn unsafe_without_the_opening_line_is_caught() {
        assert_eq!(found("//! Doc.\nfn f() { unsafe { g() } }"), 1);
        assert_eq!(found("//! Doc.\nuse x;\n#![expect(unsafe_code, reason = \"r\")]\nunsafe fn f() {}"), 2);
        assert_eq!(found("#![expect(unsafe_code, reason = \"\")]\nunsafe fn f() {}"), 2);
        assert_eq!(found("#[allow(unsafe_code)]\nfn f() {}"), 1);
    }

    #[test]
    fn unsafe_in_a_module_made_for_it_is_fine() {
        assert_eq!(found("//! Doc.\n#![expect(unsafe_code, reason = \"maps memory\")]\nfn f() { unsafe { g() } }"), 0);
        assert_eq!(found("// unsafe\nconst S: &str = \"unsafe\";"), 0);
    }

    #[test]
    fn a_crate_that_leaves_the_lint_table_is_caught() {
        let good = "[package]\nname = \"a\"\n[lints]\nworkspace = true\n";
        assert!(crates_without_lints(&Tree::of(&[("a/Cargo.toml", good), ("Cargo.toml", "[workspace]")])).is_empty());
        let bad = "[package]\nversion.workspace = true\n";
        assert_eq!(crates_without_lints(&Tree::of(&[("a/Cargo.toml", bad)])).len(), 1);
    }
}
