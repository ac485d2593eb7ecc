//! Why a kernel, or what runs one, cannot be had.

use std::fmt;
use std::io;
use std::path::Path;

/// A failure of the preparation. What a kernel under test does is never one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// This machine lacks something: what was expected, what was found, and what to do.
    Absent(String),
    /// Something that works elsewhere has failed here.
    Failed(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}

/// An `io::Error` about `path` as an [`Error`].
pub fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.display().to_string();
    move |error| Error::Failed(format!("{path}: {error}"))
}
