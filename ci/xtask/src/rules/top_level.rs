//! A newcomer sees a short, known list of folders and files at the top, and nothing else.

use super::Breach;
use crate::tree::Tree;
use std::collections::BTreeSet;

pub(super) const LAW: &str = "the visible top level is exactly the list of the design; configuration that tools accept as \
                              dot-files stays hidden, and everything else has its folder.";

const VISIBLE: [&str; 11] = [
    "Cargo.toml",
    "Cargo.lock",
    "model",
    "targets",
    "corpus",
    "oracles",
    "hw-runner",
    "ci",
    "README.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
];

pub(super) fn breaches(tree: &Tree) -> Vec<Breach> {
    let names = tree.tracked().iter().map(|path| path.split('/').next().unwrap_or(path));
    let found: BTreeSet<&str> = names.filter(|name| !name.starts_with('.')).collect();
    let extra =
        found.iter().filter(|name| !VISIBLE.contains(name)).map(|name| Breach::new(name, 0, "does not belong here"));
    let missing = VISIBLE.iter().filter(|name| !found.contains(*name)).map(|name| Breach::new(name, 0, "is missing"));
    extra.chain(missing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_and_what_is_missing_is_caught() {
        let mut files: Vec<(String, &str)> = VISIBLE.iter().map(|name| (format!("{name}/x"), "")).collect();
        files.push((".github/workflows/x.yml".into(), ""));
        let tree = |files: &[(String, &str)]| {
            Tree::of(&files.iter().map(|(path, text)| (path.as_str(), *text)).collect::<Vec<_>>())
        };
        assert_eq!(breaches(&tree(&files)), []);
        files[0].0 = "notes.txt".into();
        let found: Vec<String> = breaches(&tree(&files)).into_iter().map(|breach| breach.path).collect();
        assert_eq!(found, ["notes.txt", "Cargo.toml"]);
    }
}
