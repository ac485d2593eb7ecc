//! The files of the repository, as the rules look at them.

use crate::tokens::{Token, tokens};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Every file that is tracked or would be, by its path from the top, and which of them are tracked.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, String>,
    tracked: Vec<String>,
}

impl Tree {
    /// The files below `root` that git tracks, and those it does not ignore, so that a new file is judged before it is
    /// added.
    pub(crate) fn read(root: &Path) -> Result<Self, String> {
        let mut tree = Self { tracked: list(root, &["--cached"])?, ..Self::default() };
        for path in list(root, &["--cached", "--others", "--exclude-standard"])? {
            // A file that is tracked but deleted in the working tree is not there to be judged.
            if let Ok(bytes) = std::fs::read(root.join(&path)) {
                tree.files.insert(path, String::from_utf8_lossy(&bytes).into_owned());
            }
        }
        Ok(tree)
    }

    /// Path and text of every file, in order.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Path and tokens of every Rust source file.
    pub(crate) fn sources(&self) -> impl Iterator<Item = (&str, Vec<Token>)> {
        self.files().filter(|(path, _)| path.ends_with(".rs")).map(|(path, text)| (path, tokens(text)))
    }

    /// The text of a file.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Whether there is such a file.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// Paths that git tracks.
    pub(crate) fn tracked(&self) -> &[String] {
        &self.tracked
    }

    /// A made-up tree, all of it tracked, to show a rule what it must catch.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let tracked = files.iter().map(|(path, _)| (*path).to_owned()).collect();
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        Self { files, tracked }
    }
}

fn list(root: &Path, which: &[&str]) -> Result<Vec<String>, String> {
    let output = Command::new("git").args(["ls-files", "-z"]).args(which).current_dir(root).output();
    let output = output.map_err(|e| format!("cannot list the files of {}: git does not start: {e}", root.display()))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cannot list the files of {}: {why}; run the gate in a git clone", root.display()));
    }
    let names = String::from_utf8_lossy(&output.stdout);
    Ok(names.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}
