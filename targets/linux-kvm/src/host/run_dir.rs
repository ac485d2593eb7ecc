//! The folder of one running lab. Other users cannot look into it, and it goes when the lab goes.

use kernels::Error;
use kernels::error::at;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const PREFIX: &str = "gpafuzz-lab-";
/// Held as long as the lab runs, so that others can tell a folder that was left behind.
const LOCK: &str = "lock";

/// A folder below the system's one for temporary files, where paths are short enough for sockets.
#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
    _lock: File,
}

impl RunDir {
    /// Make one, and remove those that killed labs have left.
    pub(crate) fn new() -> Result<Self, Error> {
        let parent = std::env::temp_dir();
        tidy(&parent);
        loop {
            let new = Self::unchecked(&parent)?;
            // Before it was locked it looked like one that was left behind, and may have been removed as such.
            if new.path.join(LOCK).exists() {
                return Ok(new);
            }
        }
    }

    fn unchecked(parent: &Path) -> Result<Self, Error> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        // A process with this number may have been killed here before.
        let _ = fs::remove_dir_all(&path);
        DirBuilder::new().mode(0o700).create(&path).map_err(at(&path))?;
        let lock = File::create(path.join(LOCK)).map_err(at(&path))?;
        lock.lock().map_err(at(&path))?;
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn tidy(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        // A process that has just made it waits for the lock, and then sees that it is gone.
        if is_ours
            && let Ok(lock) = File::open(entry.path().join(LOCK))
            && lock.try_lock().is_ok()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_folder_is_private_and_goes_with_its_lab() {
        let (first, second) = (RunDir::new().unwrap(), RunDir::new().unwrap());
        let path = first.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(second);
        assert!(path.exists(), "one lab removed the folder of another");
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn labs_that_begin_at_once_leave_each_other_their_folders() {
        let begin = || {
            for _ in 0..100 {
                let folder = RunDir::new().unwrap();
                tidy(&std::env::temp_dir());
                assert!(folder.path().join(LOCK).exists());
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(begin))));
    }

    #[test]
    fn what_a_killed_lab_has_left_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let left = parent.path().join(format!("{PREFIX}1-0"));
        fs::create_dir(&left).unwrap();
        fs::write(left.join(LOCK), "").unwrap();
        tidy(parent.path());
        assert!(!left.exists());
    }
}
