//! Reading what a person names on the command line: a program, a recorded trace, or a finding folder.

use crate::cli::{CliError, KernelArgs};
use crate::finding::{FINDING_FILE, MINIMIZED_FILE, Metadata, PROGRAM_FILE};
use crate::targets::{self, Opened};
use gpa_model::Program;
use gpa_model::limits::FILE_BYTES;
use gpa_model::text::{self, ParseError};
use hw_runner::Trace;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
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
    /// It is a folder, but no finding.
    NoFinding(PathBuf),
    /// The metadata of a finding cannot be read.
    Metadata(PathBuf, serde_json::Error),
}

impl fmt::Display for InputError {
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
    let program = text::parse(&text).map_err(|error| InputError::Parse(path.clone(), error))?;
    let target = target_of(&path)?;
    Ok(Input { path, program, target, trace: None })
}

/// Read the trace at `path`.
///
/// # Errors
/// An [`InputError`], as [`read`].
pub fn read_trace(path: &Path) -> Result<Trace, InputError> {
    parse_trace(path, &read_text(path)?)
}

fn parse_trace(path: &Path, text: &str) -> Result<Trace, InputError> {
    let trace = hw_runner::trace::parse(text).map_err(|error| InputError::Parse(path.to_owned(), error))?;
    match trace.missing() {
        None => Ok(trace),
        Some(at) => Err(InputError::CutShort(path.to_owned(), at + 1)),
    }
}

impl Input {
    /// The target called `name`, with the kernel asked for; without a name that of the finding, the trace itself, or else the
    /// default one.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open_target(&self, name: Option<&str>, kernel: &KernelArgs) -> Result<(String, Opened), CliError> {
        if let (None, Some(trace)) = (name, &self.trace) {
            let (name, opened) = targets::of_trace(trace.clone());
            return Ok((name.to_owned(), opened));
        }
        let name = kernel.named(name.or(self.target.as_deref()).unwrap_or(targets::DEFAULT))?;
        let opened = targets::open(&name)?;
        Ok((name, opened))
    }
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

/// Read a text file of a size that makes sense.
///
/// # Errors
/// An [`InputError`].
pub fn read_text(path: &Path) -> Result<String, InputError> {
    let unreadable = |error| InputError::Unreadable(path.to_owned(), error);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > FILE_BYTES {
        return Err(InputError::TooLarge(path.to_owned()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let (good, bad) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
        let good = String::from_utf8_lossy(good);
        let line = good.matches('\n').count() + 1;
        let column = good.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        InputError::NotText(path.to_owned(), line, column, bad[0])
    })
}
