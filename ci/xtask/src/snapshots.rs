//! Snapshots: each belongs to a test that looks at it, and none waits to be accepted.

use crate::gate::{Gate, Halt, Verdict};
use crate::tree::Tree;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub(crate) fn check(gate: &Gate) -> Verdict {
    let tree = gate.tree()?;
    let mut problems = pending(gate.root());
    problems.extend(misplaced(&tree));
    // Which snapshots are looked at is only known after the whole suite has run in this gate.
    let remark = if gate.tests_ran() {
        let record = std::fs::read_to_string(gate.snapshot_record()).unwrap_or_default();
        problems.extend(unreferenced(gate.root(), &tree, &record));
        format!("{} snapshots, each looked at by a test", snapshots(&tree).count())
    } else {
        format!("{} snapshots; run the stage `tests` too, to see that each is looked at", snapshots(&tree).count())
    };
    if problems.is_empty() { Ok(remark) } else { Err(Halt::failed(problems.join("\n"))) }
}

fn snapshots(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    tree.files().filter(|(path, _)| path.ends_with(".snap"))
}

/// Snapshots that a person has not looked at yet, which git ignores perhaps, but a gate does not.
fn pending(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if is_pending(&name) {
                let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
                found.push(format!("{shown}: a pending snapshot; compare it and accept or delete it"));
            }
        }
    }
    found.sort();
    found
}

fn is_pending(name: &str) -> bool {
    name.ends_with(".snap.new") || name.ends_with(".pending-snap")
}

/// Snapshots whose header names no source, or one that cannot have made them.
fn misplaced(tree: &Tree) -> Vec<String> {
    snapshots(tree).filter_map(|(path, text)| Some(format!("{path}: {}", misfit(tree, path, text)?))).collect()
}

fn misfit(tree: &Tree, path: &str, text: &str) -> Option<String> {
    let header = text.lines().skip(1).take_while(|line| *line != "---");
    let Some(source) = header.filter_map(|line| line.strip_prefix("source: ")).next() else {
        return Some("expected a header with `source:`, found none; make the snapshot again".into());
    };
    let source = source.trim_matches('"');
    if !tree.has(source) {
        return Some(format!("its source {source} is not there; delete the snapshot or make it again"));
    }
    // Insta names a file after the module path: law__name.snap, or crate__module__name.snap.
    let name = path.rsplit('/').next().unwrap_or(path);
    let stem = source.rsplit('/').next().unwrap_or(source).trim_end_matches(".rs");
    let modules: Vec<&str> = name.split("__").collect();
    let made_by_root = ["main", "lib", "mod"].contains(&stem);
    let fits = modules.len() > 1 && (made_by_root || modules[..modules.len() - 1].contains(&stem));
    (!fits).then(|| format!("its name does not begin with the module of its source {source}; make the snapshot again"))
}

/// Snapshots that the suite did not look at, by the record that insta kept while it ran.
fn unreferenced(root: &Path, tree: &Tree, record: &str) -> Vec<String> {
    let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
    let referenced: BTreeSet<PathBuf> = record.lines().map(|line| real(root.join(line))).collect();
    let lost = snapshots(tree).filter(|(path, _)| !referenced.contains(&real(root.join(path))));
    lost.map(|(path, _)| format!("{path}: no test looks at this snapshot; delete it")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNAP: &str = "---\nsource: model/tests/text.rs\nexpression: x\n---\nbody\n";

    fn tree(path: &'static str, text: &'static str) -> Tree {
        Tree::of(&[("model/tests/text.rs", ""), (path, text)])
    }

    #[test]
    fn pending_files_are_caught() {
        assert!(is_pending("a__b.snap.new") && is_pending(".law.rs.pending-snap"));
        assert!(!is_pending("a__b.snap"));
    }

    #[test]
    fn a_snapshot_without_its_source_is_caught() {
        assert_eq!(misplaced(&tree("model/tests/snapshots/text__errors.snap", SNAP)), Vec::<String>::new());
        assert_eq!(misplaced(&tree("model/tests/snapshots/law__errors.snap", SNAP)).len(), 1);
        assert_eq!(misplaced(&tree("a__b.snap", "---\nsource: gone.rs\n---\n")).len(), 1);
        assert_eq!(misplaced(&tree("a__b.snap", "---\nexpression: x\n---\nsource: model/tests/text.rs")).len(), 1);
    }

    #[test]
    fn a_snapshot_that_no_test_looked_at_is_caught() {
        let path = "model/tests/snapshots/text__errors.snap";
        let root = Path::new("/nowhere");
        assert_eq!(unreferenced(root, &tree(path, SNAP), &format!("/nowhere/{path}\n")), Vec::<String>::new());
        assert_eq!(unreferenced(root, &tree(path, SNAP), "/nowhere/other.snap\n").len(), 1);
        assert_eq!(unreferenced(root, &tree(path, SNAP), "").len(), 1);
    }
}
