//! The seal of a folder: a list of its files with their checksums, which is written last.
//!
//! A sealed folder and all below it belong to this user or to root, and others cannot write there. Links inside a package are kept,
//! and their text has a checksum like that of a file; none is followed.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The file that the list is in.
const SEAL: &str = ".sealed";
/// The bits of a mode that let a group and all others write.
const OTHERS_WRITE: u32 = 0o022;

/// Why a folder cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// It is not there.
    Absent,
    /// It is not what was sealed.
    Changed(String),
}

/// Names below a folder and their checksums.
type Sums = BTreeMap<String, String>;

/// Seal `folder`: from now on others cannot write there, and changes are noticed.
pub(super) fn seal(folder: &Path) -> io::Result<()> {
    break_open(folder)?;
    let mut sums = Sums::new();
    sum(folder, folder, &mut sums, &mut |path| {
        let found = path.symlink_metadata()?;
        if found.is_symlink() || found.mode() & OTHERS_WRITE == 0 {
            return Ok(());
        }
        fs::set_permissions(path, Permissions::from_mode(found.mode() & !OTHERS_WRITE))
    })?;
    let mut text = String::new();
    for (name, sum) in &sums {
        // Names with line breaks would make lists ambiguous; no package has one.
        if name.contains('\n') {
            return Err(io::Error::other(format!("a name with a line break: {name:?}")));
        }
        let _ = writeln!(text, "{sum}  {name}");
    }
    fs::write(folder.join(SEAL), text)
}

/// Remove the seal of `folder`, if it has one.
pub(super) fn break_open(folder: &Path) -> io::Result<()> {
    match fs::remove_file(folder.join(SEAL)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether `folder` is as it was sealed.
pub(super) fn check(folder: &Path) -> Result<(), Broken> {
    match folder.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Broken::Absent),
        Ok(found) if !found.is_dir() => {
            return Err(Broken::Changed(format!("expected a folder at {}, found something else", folder.display())));
        }
        _ => {}
    }
    check_owner(folder).map_err(Broken::Changed)?;
    let changed = |error: io::Error| Broken::Changed(format!("{}: {error}", folder.display()));
    let list = folder.join(SEAL);
    check_owner(&list).map_err(Broken::Changed)?;
    let mut text = String::new();
    open(&list).and_then(|mut file| file.read_to_string(&mut text)).map_err(changed)?;
    let expected: Sums = text
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(sum, name)| (name.to_owned(), sum.to_owned()))
        .collect();
    let mut found = Sums::new();
    sum(folder, folder, &mut found, &mut |path| check_owner(path).map_err(io::Error::other)).map_err(changed)?;
    if expected == found {
        return Ok(());
    }
    let other = expected.iter().find(|(name, sum)| found.get(*name) != Some(sum)).map(|(name, _)| name);
    let other = other.or_else(|| found.keys().find(|name| !expected.contains_key(*name)));
    let other = other.map_or(Path::new("."), Path::new);
    Err(Broken::Changed(format!("{} is not what it was when it was made", folder.join(other).display())))
}

/// Whether what is at `path` belongs to this user or to root, and only they can write to it. A link is no place to look behind.
pub(super) fn check_owner(path: &Path) -> Result<(), String> {
    let place = path.display();
    let found = path.symlink_metadata().map_err(|error| format!("{place}: {error}"))?;
    let own = own_user();
    if found.uid() != 0 && found.uid() != own {
        return Err(format!("expected {place} to belong to user {own} or to root, found user {}", found.uid()));
    }
    // The mode of a link means nothing: what counts is who can write to the folder that it is in.
    if !found.is_symlink() && found.mode() & OTHERS_WRITE != 0 {
        return Err(format!("expected that others cannot write to {place}, found mode {:o}", found.mode() & 0o777));
    }
    Ok(())
}

/// The user whose process this is.
fn own_user() -> u32 {
    fs::metadata("/proc/self").map_or(0, |process| process.uid())
}

/// Add the checksums of what is in `folder`, a part of `top`, after `visit` has seen it.
fn sum(top: &Path, folder: &Path, sums: &mut Sums, visit: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    visit(folder)?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let kind = path.symlink_metadata()?.file_type();
        let name = path.strip_prefix(top).map_err(io::Error::other)?.to_string_lossy().into_owned();
        if kind.is_dir() {
            sum(top, &path, sums, visit)?;
        } else if name != SEAL {
            visit(&path)?;
            let digest = if kind.is_symlink() {
                Sha256::digest(fs::read_link(&path)?.as_os_str().as_bytes())
            } else if kind.is_file() {
                digest(&path)?
            } else {
                return Err(io::Error::other(format!("{name} is neither a file nor a folder nor a link")));
            };
            sums.insert(name, digest.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")));
        }
    }
    Ok(())
}

fn digest(path: &Path) -> io::Result<sha2::digest::Output<Sha256>> {
    let (mut file, mut hasher, mut buffer) = (open(path)?, Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize()),
            length => hasher.update(&buffer[..length]),
        }
    }
}

/// Open a file for reading, no link.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}
