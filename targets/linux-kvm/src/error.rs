//! Why there is no lab, or no lab any more.

use crate::supervise::end_with_us;
use std::fmt;
use std::io;
use std::path::Path;
use std::process::Command;

/// A failure of the lab itself. What the kernel inside does is never one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabError {
    /// This machine lacks something: what was expected, what was found, and what to do.
    Absent(String),
    /// Something that works elsewhere has failed here.
    Failed(String),
}

impl fmt::Display for LabError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for LabError {}

/// An `io::Error` about `path` as a [`LabError`].
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> LabError {
    let path = path.display().to_string();
    move |error| LabError::Failed(format!("{path}: {error}"))
}

/// Run `command` and return what it prints. `need` is the Debian package that has it.
///
/// If we are killed it is told to stop by SIGTERM: `make` and `apt-get` then stop those that work for them, too.
pub(crate) fn output(command: &mut Command, need: &str) -> Result<Vec<u8>, LabError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = end_with_us(command, libc::SIGTERM).output().map_err(|error| {
        LabError::Absent(format!("expected the command `{name}`, found: {error}; install the package {need}"))
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said.lines().rev().filter(|line| !line.trim().is_empty()).take(8).collect();
    let last = last.into_iter().rev().collect::<Vec<_>>().join("\n  ");
    Err(LabError::Failed(format!("`{line}` ended with {}:\n  {last}", output.status)))
}
