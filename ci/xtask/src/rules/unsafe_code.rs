//! Unsafe code lives in modules that exist to hold it, and say so before anything else.
//!
//! rustc denies `unsafe` wherever the lint is not lifted (`[workspace.lints]`); this rule says where it may be lifted.

use super::Breach;
use crate::tree::Tree;

pub(super) const LAW: &str = "the lint against unsafe code is lifted for a whole module, by a line `#![expect(…, reason = \"…\")]`, and \
                              nowhere else.";
pub(super) const LINTS_LAW: &str = "every crate takes the workspace's lints: `[lints]` with `workspace = true`.";

/// The lint. Split so that this file does not lift it.
const LINT: &str = concat!("unsafe", "_code");

pub(super) fn breaches(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, text) in tree.files().filter(|(path, _)| path.ends_with(".rs")) {
        let attributes = text.lines().enumerate().filter(|(_, line)| line.contains(LINT) && line.contains('['));
        for (at, line) in attributes.filter(|(_, line)| !line.starts_with(&format!("#![expect({LINT}, reason = \""))) {
            breaches.push(Breach::new(path, at + 1, format!("`{}`", line.trim())));
        }
    }
    breaches
}

/// Crates that would not notice `unsafe`, because they do not take the lint table.
pub(super) fn crates_without_lints(tree: &Tree) -> Vec<Breach> {
    let manifests = tree.files().filter(|(path, _)| path.ends_with("/Cargo.toml"));
    let without = manifests.filter(|(_, text)| !text.contains("\n[lints]\nworkspace = true\n"));
    without.map(|(path, _)| Breach::new(path, 0, "no `[lints]` with `workspace = true`")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lint_is_lifted_for_modules_alone() {
        let found = |line: &str| breaches(&Tree::of(&[("x.rs", &line.replace("LINT", LINT))])).len();
        for bad in [
            "#[allow(LINT)]",
            "#![allow(LINT, reason = \"r\")]",
            "#![expect(LINT)]",
            "    #![expect(LINT, reason = \"r\")]",
        ] {
            assert_eq!(found(bad), 1, "{bad}");
        }
        assert_eq!(found("//! Doc.\n#![expect(LINT, reason = \"maps memory\")]\nfn f() {}"), 0);
    }

    #[test]
    fn a_crate_that_leaves_the_lint_table_is_caught() {
        let found =
            |text| crates_without_lints(&Tree::of(&[("a/Cargo.toml", text), ("Cargo.toml", "[workspace]")])).len();
        assert_eq!(found("[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n"), 0);
        assert_eq!(found("[package]\nversion.workspace = true\n"), 1);
    }
}
