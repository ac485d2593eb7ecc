//! Snapshots: a test looks at each, and none waits for review.
//!
//! `cargo insta test --unreferenced=reject` does the same. It takes minutes to install, and what it knows is in a file that the
//! library writes: one comparison is all that is left to do.

use crate::gate::{Gate, Halt, Verdict};
use crate::tree::Tree;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The variable that names the file to which insta writes every snapshot that a test looks at.
pub(crate) const RECORD_VARIABLE: &str = "INSTA_SNAPSHOT_REFERENCES_FILE";

pub(crate) fn check(gate: &Gate) -> Verdict {
    if !gate.tests_ran() {
        return Err(Halt::Skipped("the stage `tests` did not run, so no snapshot was looked at".into()));
    }
    let tree = gate.tree()?;
    let record = std::fs::read_to_string(gate.snapshot_record()).unwrap_or_default();
    let mut problems = pending(gate.root())?;
    problems.extend(unreferenced(gate.root(), &tree, &record));
    let count = snapshots(&tree).count();
    if problems.is_empty() { Ok(format!("{count} snapshots")) } else { Err(Halt::Failed(problems.join("\n"))) }
}

fn snapshots(tree: &Tree) -> impl Iterator<Item = &str> {
    tree.files().map(|(path, _)| path).filter(|path| path.ends_with(".snap"))
}

/// Snapshots that wait for review. Git ignores them; the gate does not.
fn pending(root: &Path) -> Result<Vec<String>, Halt> {
    let mut git = std::process::Command::new("git");
    git.args(["ls-files", "--others", "--", "*.snap.new", "*.pending-snap"]).current_dir(root);
    let output = git.output().map_err(|e| Halt::failed(format!("git does not start: {e}")))?;
    let files = String::from_utf8_lossy(&output.stdout);
    Ok(files.lines().map(|path| format!("{path}: a pending snapshot; compare it, then accept or delete it")).collect())
}

/// Snapshots that no test looked at, by the record that insta kept.
fn unreferenced(root: &Path, tree: &Tree, record: &str) -> Vec<String> {
    let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
    let referenced: BTreeSet<PathBuf> = record.lines().map(|line| real(root.join(line))).collect();
    let lost = snapshots(tree).filter(|path| !referenced.contains(&real(root.join(path))));
    lost.map(|path| format!("{path}: no test looks at this snapshot; delete it")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_that_no_test_looked_at_is_caught() {
        let path = "model/tests/snapshots/text__errors.snap";
        let lost = |record: &str| unreferenced(Path::new("/nowhere"), &Tree::of(&[(path, "")]), record).len();
        assert_eq!([lost(&format!("/nowhere/{path}\n")), lost("/nowhere/other.snap\n"), lost("")], [0, 1, 1]);
    }
}
