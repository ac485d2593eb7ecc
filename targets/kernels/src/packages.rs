//! Debian's packages: found in the machine's own package lists, downloaded, recorded with their checksums, unpacked; never
//! installed.

use crate::command::output;
use crate::error::{Error, at};
use crate::{Cache, Progress};
use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What begins the name of a kernel's package.
const IMAGE: &str = "linux-image-";
/// What ends it.
pub(crate) const FLAVOUR: &str = "-amd64";
/// Checksums of the packages that a folder was made from, as `sha256sum` prints them.
const CHECKSUMS: &str = "SHA256SUMS";

/// Fetch the newest kernel of `version`, such as `6.12`, if it is not in the cache: where its package is unpacked.
///
/// # Errors
/// [`Error::Absent`] if this machine's package lists have no such kernel, or there is no way to fetch it.
pub(crate) fn kernel(cache: &Cache, version: &str, say: Progress<'_>) -> Result<PathBuf, Error> {
    if version.is_empty() || !version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+~-".contains(&byte)) {
        return Err(Error::Absent(format!("expected a kernel version such as 6.12, found `{version}`")));
    }
    cache.folder(&format!("kernel-{version}"), say, |folder, say| {
        let release = newest(version, &available()?)?;
        fetch(folder, &[format!("{IMAGE}{release}")], say)
    })
}

/// The version of the package that is unpacked in `root`, such as `6.12.117-1~deb12u1`, from the name of the file that was
/// downloaded.
pub(crate) fn version_in(root: &Path) -> Result<String, Error> {
    let path = root.join(CHECKSUMS);
    let sums = fs::read_to_string(&path).map_err(at(&path))?;
    let version = sums.split('_').nth(1).map(|version| version.replace("%3a", ":"));
    version.ok_or_else(|| Error::Failed(format!("{}: no package is named in it", path.display())))
}

/// Download `packages` into `folder` and unpack them there. What an interrupted download has left is used.
pub(crate) fn fetch(folder: &Path, packages: &[String], say: Progress<'_>) -> Result<(), Error> {
    let downloads = folder.join("packages");
    fs::create_dir_all(&downloads).map_err(at(&downloads))?;
    say(&format!("lab: downloading {} (once; kept in {})", packages.join(", "), folder.display()));
    let mut apt = Command::new("apt-get");
    output(apt.arg("download").args(packages).current_dir(&downloads), "apt").map_err(|error| match error {
        Error::Failed(why) => Error::Absent(format!(
            "cannot download {}: {why}\n  kernels that this machine's package lists have: {}; bring them up to date with \
             `apt-get update`, or name another with --kernel",
            packages.join(", "),
            available().map_or_else(|error| error.to_string(), |names| names.join(", "))
        )),
        absent => absent,
    })?;
    let mut files: Vec<PathBuf> =
        fs::read_dir(&downloads).map_err(at(&downloads))?.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    files.sort();
    let names = files.iter().filter_map(|path| path.file_name());
    let sums = output(Command::new("sha256sum").args(names).current_dir(&downloads), "coreutils")?;
    let path = folder.join(CHECKSUMS);
    fs::write(&path, sums).map_err(at(&path))?;
    for file in &files {
        say(&format!("lab: unpacking {}", file.file_name().unwrap_or_default().display()));
        output(Command::new("dpkg-deb").arg("-x").arg(file).arg(folder), "dpkg")?;
    }
    fs::remove_dir_all(&downloads).map_err(at(&downloads))
}

/// The releases of all kernels in this machine's package lists, ascending.
fn available() -> Result<Vec<String>, Error> {
    let names = output(Command::new("apt-cache").args(["pkgnames", IMAGE]), "apt")?;
    let names = String::from_utf8_lossy(&names).into_owned();
    let release = |name: &str| {
        let release = name.strip_prefix(IMAGE)?;
        let version = release.strip_suffix(FLAVOUR)?;
        // Not the metapackages, and not the kernels for clouds and real time.
        let plain = version.contains('.') && !version.ends_with("-cloud") && !version.ends_with("-rt");
        (plain && version.matches('.').count() > 1).then(|| release.to_owned())
    };
    let mut releases: Vec<String> = names.lines().filter_map(release).collect();
    releases.sort_by(|a, b| natural(a, b));
    Ok(releases)
}

/// The last of `available` that is a `version`.
fn newest(version: &str, available: &[String]) -> Result<String, Error> {
    let is_one = |release: &&String| {
        let rest = release.strip_prefix(version);
        rest.is_some_and(|rest| rest.starts_with(['.', '-', '+']))
    };
    available.iter().rev().find(is_one).cloned().ok_or_else(|| {
        Error::Absent(format!(
            "expected a kernel {version} in this machine's package lists, found {}; bring them up to date with \
             `apt-get update`, or name another with --kernel",
            if available.is_empty() { "none at all".to_owned() } else { available.join(", ") }
        ))
    })
}

/// Compare with numbers by value.
pub(crate) fn natural(a: &str, b: &str) -> Ordering {
    let parts = |text: &str| {
        let mut parts: Vec<(u64, String)> = vec![(0, String::new())];
        let mut digits = false;
        for c in text.chars() {
            if let Some(digit) = c.to_digit(10) {
                if !digits {
                    parts.push((0, String::new()));
                }
                if let Some((number, _)) = parts.last_mut() {
                    *number = number.saturating_mul(10).saturating_add(digit.into());
                }
            } else if let Some((_, text)) = parts.last_mut() {
                text.push(c);
            }
            digits = c.is_ascii_digit();
        }
        parts
    };
    parts(a).cmp(&parts(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_version_is_taken() {
        let mut releases: Vec<String> =
            ["6.12.117+deb12-amd64", "6.1.0-9-amd64", "6.12.9+deb12-amd64", "6.1.0-56-amd64"].map(str::to_owned).into();
        releases.sort_by(|a, b| natural(a, b));
        assert_eq!(newest("6.1", &releases).unwrap(), "6.1.0-56-amd64");
        assert_eq!(newest("6.12", &releases).unwrap(), "6.12.117+deb12-amd64");
        assert_eq!(newest("6.12.9", &releases).unwrap(), "6.12.9+deb12-amd64");
        let Error::Absent(why) = newest("6.13", &releases).unwrap_err() else { panic!("there is no 6.13") };
        assert!(why.contains("expected a kernel 6.13") && why.contains("6.1.0-56-amd64"), "{why}");
    }
}
