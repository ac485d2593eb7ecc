//! Where kernels are kept, fetched and built: folders that are there whole or not at all.
//!
//! A finished folder carries a seal: the checksums of all its files. It is checked each time the folder is used, and a
//! folder that has changed is made again. Only this user or root can have written what is used. A cache that is mounted read-only
//! can be used as long as nothing has to be added.

mod lock;
mod room;
mod seal;

pub use lock::Lock;

use crate::{Error, Progress, error::at};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The environment variable that names another place for the cache.
pub const PLACE: &str = "GPAFUZZ_LAB";
/// The end of the name of a folder that is not finished.
const UNFINISHED: &str = ".new";
/// Only this user writes here.
const MODE: u32 = 0o700;

/// The cache. One process at a time makes a folder in it; finished folders are checked and used without a lock.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
    offline: bool,
}

impl Cache {
    /// The cache of this user: `$GPAFUZZ_LAB`, or `gpafuzz-lab` below `$XDG_CACHE_HOME` or `~/.cache`.
    ///
    /// # Errors
    /// [`Error::Absent`] if it cannot be created, or if others can write to it.
    pub fn of_user() -> Result<Self, Error> {
        let place = std::env::var_os(PLACE).map(PathBuf::from);
        let base = || std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
        let root = place.or_else(|| base().or_else(home).map(|base| base.join("gpafuzz-lab")));
        let root = root.ok_or_else(|| Error::Absent(format!("expected $HOME or ${PLACE} to be set, found neither")))?;
        Self::at(&root)
    }

    /// The cache in `root`.
    ///
    /// # Errors
    /// [`Error::Absent`] if it cannot be created, or if others can write to it.
    pub fn at(root: &Path) -> Result<Self, Error> {
        DirBuilder::new().recursive(true).mode(MODE).create(root).map_err(|error| {
            let root = root.display();
            Error::Absent(format!("expected a folder for kernels at {root}, found: {error}; name another in ${PLACE}"))
        })?;
        let root = &fs::canonicalize(root).map_err(at(root))?;
        seal::check_owner(root).map_err(|why| {
            let root = root.display();
            Error::Absent(format!(
                "{why}; if what is in {root} can be trusted, `chmod go-w {root}`, or else name another in ${PLACE}"
            ))
        })?;
        Ok(Self { root: root.to_owned(), offline: false })
    }

    /// The same cache, with nothing fetched into it.
    #[must_use]
    pub fn offline(self) -> Self {
        Self { offline: true, ..self }
    }

    /// Whether nothing is to be fetched.
    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// The folder of the cache itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether there is a finished folder `name`; its seal is not checked.
    pub fn has(&self, name: &str) -> bool {
        self.root.join(name).is_dir()
    }

    /// The folder `name`, made by `fill` if it is not there yet, or has changed since it was. An interrupted `fill` finds what it
    /// has left in its folder, so it can go on.
    ///
    /// # Errors
    /// Whatever `fill` returns, or if the folder cannot be made.
    pub fn folder(
        &self,
        name: &str,
        progress: Progress<'_>,
        fill: impl FnOnce(&Path, Progress<'_>) -> Result<(), Error>,
    ) -> Result<PathBuf, Error> {
        let folder = self.root.join(name);
        if seal::check(&folder).is_ok() {
            return Ok(folder);
        }
        let _lock = self.lock(name, progress)?;
        match seal::check(&folder) {
            Ok(()) => return Ok(folder),
            Err(seal::Broken::Absent) => {}
            Err(seal::Broken::Changed(why)) => {
                progress(&format!("{name} is made again: {why}"));
                remove(&folder)?;
            }
        }
        let unfinished = self.root.join(format!("{name}{UNFINISHED}"));
        // What is left of an interrupted one is used only if it is this user's.
        if unfinished.symlink_metadata().is_ok() && seal::check_owner(&unfinished).is_err() {
            remove(&unfinished)?;
        }
        DirBuilder::new().recursive(true).mode(MODE).create(&unfinished).map_err(at(&unfinished))?;
        if let Err(error) = fill(&unfinished, progress).and_then(|()| seal::seal(&unfinished).map_err(at(&unfinished)))
        {
            remove_empty(&unfinished);
            return Err(self.with_room(error));
        }
        fs::rename(&unfinished, &folder).map_err(at(&folder))?;
        Ok(folder)
    }

    /// A folder `name` to work in, where `work` is done with what earlier work has left there. If that has changed since, the
    /// folder is empty again.
    ///
    /// # Errors
    /// Whatever `work` returns, or if the folder cannot be made.
    pub fn workshop<T>(
        &self,
        name: &str,
        progress: Progress<'_>,
        work: impl FnOnce(&Path, Progress<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let folder = self.root.join(name);
        let _lock = self.lock(name, progress)?;
        if let Err(seal::Broken::Changed(_)) = seal::check(&folder) {
            remove(&folder)?;
        }
        DirBuilder::new().recursive(true).mode(MODE).create(&folder).map_err(at(&folder))?;
        // Interrupted work leaves no seal, and so nothing to go on from.
        seal::break_open(&folder).map_err(at(&folder))?;
        let done = work(&folder, progress)?;
        seal::seal(&folder).map_err(at(&folder))?;
        Ok(done)
    }

    /// The same error, with how much room is free if that is little: few commands name a full disk as what they failed for.
    #[must_use]
    pub fn with_room(&self, error: Error) -> Error {
        room::explain(&self.root, error)
    }

    /// Whether this process cannot make `name`, however much room there is: the cache is mounted read-only, or is another user's.
    pub fn is_read_only(&self, name: &str) -> bool {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        lock::open(&self.lock_file(name))
            .is_err_and(|error| matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem))
    }

    /// Wait until no other process makes `name`.
    ///
    /// # Errors
    /// If nothing can be made in the cache, or the other process does not come to an end.
    pub fn lock(&self, name: &str, progress: Progress<'_>) -> Result<Lock, Error> {
        let path = self.lock_file(name);
        let file = lock::open(&path).map_err(|error| {
            let root = self.root.display();
            Error::Absent(format!(
                "expected to make {name} in the folder {root}, found: {error}; name another in ${PLACE}"
            ))
        })?;
        lock::wait(file, &path, name, progress)
    }

    fn lock_file(&self, name: &str) -> PathBuf {
        self.root.join(format!(".{name}.lock"))
    }
}

/// Remove what is at `path`: a folder with all that is in it, or the one file or link that is there instead.
fn remove(path: &Path) -> Result<(), Error> {
    let removed = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(at(path))
}

/// Remove `folder` if nothing is in it but folders with nothing in them: that is nothing to go on from.
fn remove_empty(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    // One that is not empty stays.
    let _ = fs::remove_dir(folder);
}

#[cfg(test)]
mod tests;
