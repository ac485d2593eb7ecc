//! The folder that findings are written to.
//!
//! A folder appears whole or not at all: it is written beside its place, brought to disk, and renamed. There is one folder
//! a signature; finding the same again replaces it.

use super::finding::{FINDING_FILE, Finding, MINIMIZED_FILE, PROGRAM_FILE, REPORT_FILE};
use gpa_model::text;
use gpa_oracles::Signature;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const LOCK_FILE: &str = ".lock";
const FINDINGS: &str = "findings";

/// Why findings cannot be written.
#[derive(Debug)]
pub enum StoreError {
    /// The folder cannot be made or written.
    Unwritable(PathBuf, io::Error),
    /// Another campaign writes there.
    Busy(PathBuf),
    /// Something there cannot be gone on from, for this reason.
    Unreadable(PathBuf, String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unwritable(path, error) => {
                write!(f, "{}: cannot be written: {error}; name another folder with --out DIR", path.display())
            }
            Self::Busy(path) => {
                write!(f, "{}: another campaign writes there; name another folder with --out DIR", path.display())
            }
            Self::Unreadable(path, why) => {
                write!(
                    f,
                    "{}: cannot be read: {why}; begin anew with --fresh, or name another folder with --out DIR",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for StoreError {}

/// A folder that findings are written to, by one campaign at a time.
#[derive(Debug)]
pub struct Store {
    out: PathBuf,
    _lock: File,
}

impl Store {
    /// Make `out` a place for findings, and clear away what an interrupted campaign has left unfinished.
    ///
    /// # Errors
    /// A [`StoreError`] if `out` cannot be written, or another campaign writes there.
    pub fn open(out: &Path) -> Result<Self, StoreError> {
        let unwritable = |path: &Path| {
            let path = path.to_owned();
            move |error| StoreError::Unwritable(path, error)
        };
        let findings = out.join(FINDINGS);
        fs::create_dir_all(&findings).map_err(unwritable(&findings))?;
        let path = out.join(LOCK_FILE);
        let lock = open_lock(&path).map_err(unwritable(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Busy(out.to_owned())),
            Err(TryLockError::Error(error)) => return Err(StoreError::Unwritable(path, error)),
        }
        for target in fs::read_dir(&findings).map_err(unwritable(&findings))?.flatten() {
            tidy(&target.path()).map_err(unwritable(&target.path()))?;
        }
        Ok(Self { out: out.to_owned(), _lock: lock })
    }

    /// Where a finding of `signature` by the campaign called `target` belongs, below [`Store::out`].
    pub fn folder(target: &str, signature: &Signature) -> PathBuf {
        let name = signature.to_string().replace('/', "-");
        Path::new(FINDINGS).join(file_name(target)).join(name)
    }

    /// The folder that holds everything.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// Write `finding` to `folder`, which is below [`Store::out`]. When this returns it is on disk.
    ///
    /// # Errors
    /// [`StoreError::Unwritable`].
    pub fn save(&self, folder: &Path, finding: &Finding) -> Result<(), StoreError> {
        let folder = self.out.join(folder);
        save(&folder, finding).map_err(|error| StoreError::Unwritable(folder, error))
    }
}

/// Open the lock file, or make it. What is there already is neither followed, if it is a link, nor truncated, nor waited for.
fn open_lock(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("expected a file, found something else"));
    }
    Ok(file)
}

/// A name for files that belong to `target`.
pub(super) fn file_name(target: &str) -> String {
    target.replace([':', '/', '#'], "-")
}

/// Write `bytes` beside `path`, bring them to disk, and rename them to it.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    let new = beside(path, "new");
    // What a killed campaign has left there is ours; a link or a FIFO of this name is not followed but replaced.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::create_new(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(parent)?.sync_all()
}

/// The name of what stands beside `folder` while it is replaced.
fn beside(folder: &Path, what: &str) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    folder.with_file_name(format!(".{name}.{what}"))
}

fn save(folder: &Path, finding: &Finding) -> io::Result<()> {
    let (new, old) = (beside(folder, "new"), beside(folder, "old"));
    let parent = folder.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    remove(&new)?;
    fs::create_dir(&new)?;
    let metadata = serde_json::to_string_pretty(&finding.metadata)? + "\n";
    let (program, minimized) = (text::print(&finding.program), text::print(&finding.minimized));
    let files = [
        (PROGRAM_FILE, program.as_str()),
        (MINIMIZED_FILE, &minimized),
        (REPORT_FILE, &finding.report),
        (FINDING_FILE, &metadata),
    ];
    for (name, text) in files.into_iter().chain(finding.seen_files()) {
        let mut file = File::create(new.join(name))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
    }
    File::open(&new)?.sync_all()?;
    if folder.exists() {
        // A folder cannot be renamed over a full one. Should this end here, `tidy` puts the old one back.
        remove(&old)?;
        fs::rename(folder, &old)?;
    }
    fs::rename(&new, folder)?;
    File::open(parent)?.sync_all()?;
    remove(&old)
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Finish or undo what was under way in `target` when a campaign was killed.
fn tidy(target: &Path) -> io::Result<()> {
    if !target.symlink_metadata()?.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(target)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(name) = name.strip_prefix('.') else { continue };
        // A finding is a folder; links and files are somebody else's.
        if !path.symlink_metadata()?.is_dir() {
            continue;
        }
        if name.ends_with(".new") {
            remove(&path)?;
        } else if let Some(name) = name.strip_suffix(".old") {
            let folder = path.with_file_name(name);
            if folder.exists() { remove(&path)? } else { fs::rename(&path, &folder)? }
        }
    }
    Ok(())
}
