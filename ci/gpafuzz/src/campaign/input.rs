//! Reading a file that the user names: a program, a recorded trace, or the folder of a finding.

use super::finding::{FINDING_FILE, MINIMIZED_FILE, Metadata, PROGRAM_FILE};
use crate::files::{FileError, parse_trace, read_text};
use gpa_model::{Program, text};
use hw_runner::Trace;
use std::fmt;
use std::path::{Path, PathBuf};

/// A program and where it comes from.
#[derive(Clone, Debug)]
pub struct Input {
    /// The file that was read.
    pub path: PathBuf,
    /// The program.
    pub program: Program,
    /// The target it was found on, if it comes from a finding.
    pub target: Option<String>,
    /// The trace that it is part of, if the file is one.
    pub trace: Option<Trace>,
}

/// Why a file cannot be used.
#[derive(Debug)]
pub enum InputError {
    /// It cannot be read, or is not what it should be.
    File(FileError),
    /// It is a folder, but no finding.
    NoFinding(PathBuf),
    /// The metadata of a finding cannot be read.
    Metadata(PathBuf, serde_json::Error),
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::NoFinding(path) => write!(
                f,
                "{}: expected a program, or a finding folder with {MINIMIZED_FILE} or {PROGRAM_FILE} in it, found a \
                 folder without",
                path.display()
            ),
            Self::Metadata(path, error) => {
                write!(f, "{}: expected the metadata of a finding, found: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for InputError {}

impl From<FileError> for InputError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

/// Read the program at `path`, or the smallest one of the finding there.
///
/// # Errors
/// An [`InputError`] that says what is wrong with which file, and where in it.
pub fn read(path: &Path) -> Result<Input, InputError> {
    let mut path = path.to_owned();
    if path.is_dir() {
        let inside = [MINIMIZED_FILE, PROGRAM_FILE].map(|name| path.join(name)).into_iter().find(|file| file.is_file());
        path = inside.ok_or(InputError::NoFinding(path))?;
    }
    let text = read_text(&path)?;
    if text.starts_with(hw_runner::trace::MAGIC) {
        let trace = parse_trace(&path, &text)?;
        return Ok(Input { path, program: trace.program.clone(), target: None, trace: Some(trace) });
    }
    let program = text::parse(&text).map_err(|error| FileError::Parse(path.clone(), error))?;
    let target = target_of(&path)?;
    Ok(Input { path, program, target, trace: None })
}

/// The target that the finding around `program` names, if there is one.
fn target_of(program: &Path) -> Result<Option<String>, InputError> {
    let is_of_finding = [MINIMIZED_FILE, PROGRAM_FILE].iter().any(|name| program.ends_with(name));
    let metadata = program.with_file_name(FINDING_FILE);
    if !is_of_finding || !metadata.is_file() {
        return Ok(None);
    }
    let text = read_text(&metadata)?;
    let metadata: Metadata = serde_json::from_str(&text).map_err(|error| InputError::Metadata(metadata, error))?;
    Ok(Some(metadata.target))
}
