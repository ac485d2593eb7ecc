//! The lock under which a folder of the cache is made.
//!
//! It is the kernel's own lock on a file (`flock`), so it goes with its process. To hold it one has to open the file, which other
//! users cannot: it has mode 0600. Waiting for it is reported and ends.

use crate::{Error, Progress, error::at};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How often it is tried.
const TRY: Duration = Duration::from_millis(50);
/// How often it is said that this process waits.
const REPORT: Duration = Duration::from_secs(30);
/// Longer than a download and a build take on a slow machine.
const LIMIT: Duration = Duration::from_secs(3600);

/// A lock that is held. Dropping it lets the next process have it.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Open the file of a lock, which is no link and nothing that makes its reader wait.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("a lock that is no file")) }
}

/// Wait for the lock on `file`, the one for `name`.
pub(super) fn wait(mut file: File, path: &Path, name: &str, progress: Progress<'_>) -> Result<Lock, Error> {
    let start = Instant::now();
    let mut report = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(at(path)(error)),
            Err(TryLockError::WouldBlock) => {}
        }
        let waited = start.elapsed();
        if waited >= LIMIT {
            return Err(Error::Failed(format!(
                "expected {} to make {name} within {} minutes, found it still at it; end it if it hangs",
                holder(&mut file),
                LIMIT.as_secs() / 60
            )));
        }
        if waited >= report {
            report += REPORT;
            progress(&format!("waiting for {}, which is making {name}", holder(&mut file)));
        }
        thread::sleep(TRY);
    }
    // Whose it is is for others to read: that it cannot be written harms nothing.
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(Lock { _file: file })
}

/// The process that has the lock, as far as the file says.
fn holder(file: &mut File) -> String {
    let mut number = String::new();
    let read = file.rewind().and_then(|()| file.take(20).read_to_string(&mut number));
    match (read, number.trim().parse::<u32>()) {
        (Ok(_), Ok(number)) => format!("process {number}"),
        _ => "another process".to_owned(),
    }
}
