//! A machine that has come up, kept in a file of the cache: the next one goes on from there instead of booting.
//!
//! The file has what the runner inside said first, what the kernel had said by then, and QEMU's own stream of the machine's state.

use crate::emulator::Image;
use kernels::Cache;
use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Where they lie in the cache.
const FOLDER: &str = "booted";
/// The first bytes of each.
const MAGIC: &[u8; 16] = b"gpafuzz-booted 1";
/// What is being written.
const UNFINISHED: &str = "new";
/// How many are kept, of about 100 MB each: those that were used last.
const KEPT: usize = 8;
/// More than a runner or a kernel says until it is up.
const WORDS_BYTES: u64 = 1 << 20;

/// Where the snapshot of a certain image on a certain QEMU is, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place(PathBuf);

/// A machine that has come up.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The file, to be read from where QEMU's stream begins.
    pub(crate) stream: File,
    pub(crate) words: Words,
}

/// What was said until the machine was up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    /// The runner's first message.
    pub(crate) hello: String,
    /// The kernel's log.
    pub(crate) log: String,
}

/// A snapshot that is being written. It is gone if it is not finished.
#[derive(Debug)]
pub(crate) struct Unfinished {
    file: File,
    path: PathBuf,
}

impl Place {
    /// For `image` on `hardware`. Whatever has a part in the machine's state has one in the name.
    pub(crate) fn of(cache: &Cache, image: &Image, hardware: impl Hash) -> io::Result<Self> {
        let folder = cache.root().join(FOLDER);
        fs::create_dir_all(&folder)?;
        let mut hasher = DefaultHasher::new();
        (hardware, fs::read(&image.kernel)?, &image.initrd, &image.words).hash(&mut hasher);
        Ok(Self(folder.join(format!("{:016x}", hasher.finish()))))
    }

    /// The snapshot, if there is one.
    pub(crate) fn find(&self) -> Option<Snapshot> {
        let mut stream = File::open(&self.0).ok()?;
        let mut magic = [0; MAGIC.len()];
        stream.read_exact(&mut magic).ok().filter(|()| magic == *MAGIC)?;
        let words = Words { hello: read_words(&mut stream).ok()?, log: read_words(&mut stream).ok()? };
        // The one that was used last is the last to go.
        let _ = stream.set_modified(SystemTime::now());
        Some(Snapshot { stream, words })
    }

    /// Begin to write it. The oldest others make room.
    ///
    /// # Errors
    /// If there can be no such file, or this process is writing it already.
    pub(crate) fn begin(&self) -> io::Result<Unfinished> {
        self.0.parent().map_or(Ok(()), tidy)?;
        let path = self.0.with_extension(format!("{}.{UNFINISHED}", std::process::id()));
        let file = File::options().write(true).create_new(true).open(&path)?;
        // A file that no process has locked was left behind.
        file.lock()?;
        Ok(Unfinished { file, path })
    }

    /// Forget it: it is of no use.
    pub(crate) fn discard(&self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Unfinished {
    /// The file, for QEMU's stream to be written to, behind what is there.
    pub(crate) fn stream(&mut self) -> &mut File {
        &mut self.file
    }

    /// Write what was said.
    pub(crate) fn begin(&mut self, words: &Words) -> io::Result<()> {
        self.file.write_all(MAGIC)?;
        for words in [&words.hello, &words.log] {
            self.file.write_all(&(words.len() as u64).to_le_bytes())?;
            self.file.write_all(words.as_bytes())?;
        }
        Ok(())
    }

    /// Give it the name by which it is found.
    pub(crate) fn finish(self, place: &Place) -> io::Result<()> {
        fs::rename(&self.path, &place.0)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It has another name by now if it was finished.
        let _ = fs::remove_file(&self.path);
    }
}

fn read_words(stream: &mut File) -> io::Result<String> {
    let mut length = [0; 8];
    stream.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > WORDS_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut words = vec![0; length as usize];
    stream.read_exact(&mut words)?;
    String::from_utf8(words).map_err(io::Error::other)
}

/// Remove what interrupted labs have left in `folder`, and so many that one more can be [`KEPT`].
fn tidy(folder: &Path) -> io::Result<()> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        if path.extension().is_none() {
            kept.push((entry.metadata()?.modified()?, path));
        } else if File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
            fs::remove_file(path)?;
        }
    }
    kept.sort();
    for (_, path) in &kept[..(kept.len() + 1).saturating_sub(KEPT)] {
        fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn words() -> Words {
        Words { hello: "ready\ndrivers\n".into(), log: "Linux version 6.99".into() }
    }

    fn write(place: &Place) {
        let mut new = place.begin().unwrap();
        new.begin(&words()).unwrap();
        new.stream().write_all(b"state").unwrap();
        new.finish(place).unwrap();
    }

    #[test]
    fn a_snapshot_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place(dir.path().join("a"));
        assert!(place.find().is_none());
        let mut new = place.begin().unwrap();
        new.begin(&words()).unwrap();
        drop(new);
        assert!(place.find().is_none() && fs::read_dir(dir.path()).unwrap().next().is_none());
        write(&place);
        let mut found = place.find().unwrap();
        let mut stream = String::new();
        found.stream.read_to_string(&mut stream).unwrap();
        assert_eq!((found.words, stream.as_str()), (words(), "state"));
        fs::write(&place.0, &fs::read(&place.0).unwrap()[..30]).unwrap();
        assert!(place.find().is_none(), "half of one is none");
        place.discard();
        assert!(place.find().is_none());
    }

    #[test]
    fn those_that_were_used_last_are_kept_and_what_was_left_behind_goes() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| Place(dir.path().join(name));
        let left = dir.path().join("left.1.new");
        fs::write(&left, "").unwrap();
        for second in 0..KEPT {
            let place = place(&second.to_string());
            write(&place);
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second as u64);
            File::options().write(true).open(&place.0).unwrap().set_modified(time).unwrap();
        }
        assert!(!left.exists());
        assert!(place("0").find().is_some(), "which makes it the newest");
        let busy = place("other").begin().unwrap();
        assert!(place("other").begin().is_err(), "it is being written");
        write(&place("one more"));
        assert!(busy.path.exists(), "it is not left behind");
        let there = |name: &str| place(name).0.exists();
        assert!(there("one more") && there("0") && there("3") && !there("1"));
        assert!(fs::read_dir(dir.path()).unwrap().count() <= KEPT + 1);
    }
}
