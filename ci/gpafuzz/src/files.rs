//! Reading text files of a size that makes sense, and traces among them.

use gpa_model::limits::FILE_BYTES;
use gpa_model::text::ParseError;
use hw_runner::Trace;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Why a file cannot be used.
#[derive(Debug)]
pub enum FileError {
    /// It cannot be opened or read.
    Unreadable(PathBuf, io::Error),
    /// It is larger than any program.
    TooLarge(PathBuf),
    /// It is no text: where, and which byte.
    NotText(PathBuf, usize, usize, u8),
    /// It is no program, or no trace.
    Parse(PathBuf, ParseError),
    /// It is a trace that ends too soon: the number of the first op without an observation.
    CutShort(PathBuf, usize),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(f, "{}: cannot be read: {error}", path.display()),
            Self::TooLarge(path) => write!(
                f,
                "{}: expected at most {FILE_BYTES} bytes (limits::FILE_BYTES), found a larger file",
                path.display()
            ),
            Self::NotText(path, line, column, byte) => {
                write!(f, "{}:{line}:{column}: expected UTF-8 text, found byte {byte:#04x}", path.display())
            }
            Self::Parse(path, error) => write!(f, "{}:{error}", path.display()),
            Self::CutShort(path, op) => write!(
                f,
                "{}: expected an observation of each op that means something, found none of op {op}: the trace is cut \
                 short; record it again",
                path.display()
            ),
        }
    }
}

impl std::error::Error for FileError {}

/// Read a text file of a size that makes sense.
///
/// # Errors
/// An [`FileError`].
pub fn read_text(path: &Path) -> Result<String, FileError> {
    let unreadable = |error| FileError::Unreadable(path.to_owned(), error);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > FILE_BYTES {
        return Err(FileError::TooLarge(path.to_owned()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let (good, bad) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
        let good = String::from_utf8_lossy(good);
        let line = good.matches('\n').count() + 1;
        let column = good.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        FileError::NotText(path.to_owned(), line, column, bad[0])
    })
}

/// Read the trace at `path`.
///
/// # Errors
/// An [`FileError`], as [`read_text`].
pub fn read_trace(path: &Path) -> Result<Trace, FileError> {
    parse_trace(path, &read_text(path)?)
}

/// The trace that `text`, the contents of the file at `path`, is.
///
/// # Errors
/// A [`FileError`].
pub fn parse_trace(path: &Path, text: &str) -> Result<Trace, FileError> {
    let trace = hw_runner::trace::parse(text).map_err(|error| FileError::Parse(path.to_owned(), error))?;
    match trace.missing() {
        None => Ok(trace),
        Some(at) => Err(FileError::CutShort(path.to_owned(), at + 1)),
    }
}
