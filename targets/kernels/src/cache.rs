//! Where the lab keeps what it has fetched and built: folders that are there whole or not at all.
//!
//! What is there can be used where nothing can be added, as in a cache that is mounted read-only.

use crate::Progress;
use crate::command::output;
use crate::error::{Error, at};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names another place for the cache.
pub const PLACE: &str = "GPAFUZZ_LAB";
/// What is being made, beside its place.
const UNFINISHED: &str = ".new";
/// What a kernel, its source, its headers and some builds of KVM come to, and room to unpack them.
const ENOUGH_MB: u64 = 1000;

/// The cache. One process at a time makes a thing in it; finished things are used without asking.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache of this user: `$GPAFUZZ_LAB`, or `gpafuzz-lab` below `$XDG_CACHE_HOME` or `~/.cache`.
    ///
    /// # Errors
    /// If it cannot be created.
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
    /// If it cannot be created.
    pub fn at(root: &Path) -> Result<Self, Error> {
        fs::create_dir_all(root).map_err(|error| {
            let root = root.display();
            Error::Absent(format!("expected a folder for the lab at {root}, found: {error}; name another in ${PLACE}"))
        })?;
        Ok(Self { root: root.to_owned() })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder `name`, made by `fill` if it is not there yet. An interrupted `fill` finds what it has left in its folder, so
    /// it can go on.
    ///
    /// # Errors
    /// What `fill` says, or if the folder cannot be made.
    pub fn folder(
        &self,
        name: &str,
        say: Progress<'_>,
        fill: impl FnOnce(&Path, Progress<'_>) -> Result<(), Error>,
    ) -> Result<PathBuf, Error> {
        let folder = self.root.join(name);
        if folder.is_dir() {
            return Ok(folder);
        }
        let _lock = self.lock(name, say)?;
        if folder.is_dir() {
            return Ok(folder);
        }
        let unfinished = self.root.join(format!("{name}{UNFINISHED}"));
        fs::create_dir_all(&unfinished).map_err(at(&unfinished))?;
        if let Err(error) = fill(&unfinished, say) {
            remove_empty(&unfinished);
            return Err(self.with_room(error));
        }
        fs::rename(&unfinished, &folder).map_err(at(&folder))?;
        Ok(folder)
    }

    /// The same error, and how much room there is if it is little: few commands name that as what they failed for.
    pub fn with_room(&self, error: Error) -> Error {
        // What was made for the sake of something else has said so already.
        if error.to_string().contains(PLACE) {
            return error;
        }
        let Some(free) = free_mb(&self.root).filter(|free| *free < ENOUGH_MB) else { return error };
        let root = self.root.display();
        Error::Absent(format!(
            "{error}\n  expected about {ENOUGH_MB} MB free for the lab in {root}, found {free} MB; make room, or name another place in ${PLACE}"
        ))
    }

    /// Its folder is there, and `name` cannot be made in it.
    fn unwritable(&self, name: &str, error: &io::Error) -> Error {
        let root = self.root.display();
        Error::Absent(format!(
            "expected to make {name} in the lab's folder {root}, found: {error}; name another in ${PLACE}"
        ))
    }

    /// Whether nobody here can work on `name`, however much room there is: the cache is mounted read-only, or another user's.
    pub fn is_read_only(&self, name: &str) -> bool {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        File::create(self.lock_file(name))
            .is_err_and(|error| matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem))
    }

    /// Wait until no other lab works on `name`.
    pub fn lock(&self, name: &str, say: Progress<'_>) -> Result<File, Error> {
        let path = self.lock_file(name);
        let file = File::create(&path).map_err(|error| self.unwritable(name, &error))?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            say(&format!("lab: waiting for another lab, which is making {name}"));
            file.lock().map_err(at(&path))?;
        }
        Ok(file)
    }

    fn lock_file(&self, name: &str) -> PathBuf {
        self.root.join(format!(".{name}.lock"))
    }
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

/// What is free where `folder` is; `None` if nobody knows.
fn free_mb(folder: &Path) -> Option<u64> {
    let table = output(Command::new("df").args(["--output=avail", "--block-size=1M"]).arg(folder), "coreutils").ok()?;
    String::from_utf8_lossy(&table).lines().nth(1)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_once_and_an_interrupted_one_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let halfway = cache.folder("kernel", &mut |_| {}, |new, _| {
            fs::write(new.join("first"), "1").unwrap();
            Err(Error::Failed("power cut".into()))
        });
        assert_eq!(halfway, Err(Error::Failed("power cut".into())));
        assert!(!dir.path().join("kernel").exists(), "a folder that is not whole must not have its name");
        let whole = cache.folder("kernel", &mut |_| {}, |new, _| {
            assert_eq!(fs::read_to_string(new.join("first")).unwrap(), "1");
            Ok(())
        });
        assert_eq!(whole, Ok(dir.path().join("kernel")));
        assert_eq!(cache.folder("kernel", &mut |_| {}, |_, _| panic!("made twice")), whole);
    }

    #[test]
    fn a_folder_that_nothing_was_put_into_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let nothing = cache.folder("kernel", &mut |_| {}, |new, _| {
            fs::create_dir(new.join("packages")).unwrap();
            Err(Error::Absent("there is no such kernel".into()))
        });
        assert!(nothing.is_err());
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, [".kernel.lock"]);
    }

    #[test]
    fn of_two_labs_that_want_the_same_one_makes_it_and_the_other_says_that_it_waits() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let (begun, wait) = (std::sync::Barrier::new(2), std::sync::Mutex::new(Vec::new()));
        let second = || {
            begun.wait();
            let mut say = |line: &str| wait.lock().unwrap().push(line.to_owned());
            cache.folder("kernel", &mut say, |_, _| panic!("made twice"))
        };
        std::thread::scope(|scope| {
            let second = scope.spawn(second);
            let first = cache.folder("kernel", &mut |_| {}, |_, _| {
                begun.wait();
                while wait.lock().unwrap().is_empty() {
                    std::thread::yield_now();
                }
                Ok(())
            });
            assert_eq!(second.join().unwrap(), first);
        });
        assert_eq!(*wait.lock().unwrap(), ["lab: waiting for another lab, which is making kernel"]);
    }

    /// Nobody, whatever their rights, can put a file where the kernel shows what it knows of itself.
    #[test]
    fn what_is_read_only_is_told_from_what_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        assert!(!cache.is_read_only("kernel"));
        drop(dir);
        assert!(!cache.is_read_only("kernel"));
        let sys = Path::new("/sys/kernel");
        if sys.is_dir() {
            let cache = Cache::at(sys).unwrap();
            assert!(cache.is_read_only("kernel"));
            let there = cache.folder("mm", &mut |_| {}, |_, _| panic!("it is there"));
            assert_eq!(there, Ok(sys.join("mm")), "what is there needs no lock");
        }
    }

    #[test]
    fn a_place_that_cannot_be_is_explained() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let Err(Error::Absent(why)) = Cache::at(&file.path().join("x")) else { panic!("a file is no folder") };
        assert!(why.contains(PLACE), "{why}");
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        drop(dir);
        let Err(Error::Absent(why)) = cache.lock("kernel", &mut |_| {}) else { panic!("nothing can be put there") };
        assert!(why.contains(PLACE) && why.contains("expected to make kernel in"), "{why}");
    }
}
