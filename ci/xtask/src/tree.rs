//! The files of the repository, as the rules look at them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Every file that git tracks or would track, by its path from the top.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, String>,
    tracked: Vec<String>,
}

impl Tree {
    /// The files below `root`, those that are not added yet among them.
    pub(crate) fn read(root: &Path) -> Result<Self, String> {
        let mut files = BTreeMap::new();
        for path in list(root, &["--cached", "--others", "--exclude-standard"])? {
            // A file that is tracked but deleted in the working tree is not there to be judged.
            if let Ok(bytes) = std::fs::read(root.join(&path)) {
                files.insert(path, String::from_utf8_lossy(&bytes).into_owned());
            }
        }
        Ok(Self { files, tracked: list(root, &["--cached"])? })
    }

    /// Path and text of every file, in order.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Whether there is such a file or folder.
    pub(crate) fn has(&self, path: &str) -> bool {
        let below = format!("{path}/");
        self.files.contains_key(path)
            || self.files.range(below.clone()..).next().is_some_and(|(p, _)| p.starts_with(&below))
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
