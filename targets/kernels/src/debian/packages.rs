//! Downloading and unpacking: kernels by their versions, and packages by their names.

use super::compare;
use super::lists::Lists;
use crate::command::output;
use crate::error::{Error, at};
use crate::{Cache, Progress};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What begins the name of a kernel's package.
const IMAGE: &str = "linux-image-";
/// What ends it.
pub(crate) const FLAVOUR: &str = "-amd64";
/// Since Linux 6.19 that package is empty, and these have the files.
const PARTS: [&str; 3] = ["linux-binary-", "linux-modules-", "linux-base-"];
/// The file with the checksums of the packages that a folder was made from, as `sha256sum` prints them.
const CHECKSUMS: &str = "SHA256SUMS";
/// The groups of modules that are kept, of some four thousand modules: KVM's, those of its processors and of virtio.
const KEPT: [&str; 8] =
    ["arch", "virt", "lib", "crypto", "drivers/virtio", "drivers/char", "drivers/crypto", "drivers/virt"];

/// Fetch the newest kernel of `version`, such as `6.12`, into `folder`.
///
/// # Errors
/// [`Error::Absent`] if no package list has such a kernel, or there is no way to fetch it.
pub(crate) fn fetch_kernel(cache: &Cache, version: &str, folder: &Path, progress: Progress<'_>) -> Result<(), Error> {
    let find = |lists: &Lists| newest(version, &available(lists)?, lists).map(|release| (lists.clone(), release));
    let found = find(&Lists::OfMachine).or_else(|own| {
        if cache.is_offline() {
            return Err(own);
        }
        let private = Lists::private(cache, false, progress).and_then(|lists| find(&lists));
        let renewed = private.or_else(|_| Lists::private(cache, true, progress).and_then(|lists| find(&lists)));
        renewed.map_err(|private| Error::Absent(format!("{own}\n  {private}")))
    });
    let (lists, release) = found?;
    let names = available_names(&lists, PARTS[0])?;
    let has_parts = names.contains(&format!("{}{release}", PARTS[0]));
    let packages = if has_parts {
        PARTS.iter().map(|part| format!("{part}{release}")).collect()
    } else {
        vec![format!("{IMAGE}{release}")]
    };
    fetch(cache, folder, &packages, progress)?;
    prune(folder).map_err(at(folder))
}

/// The version of the package that is unpacked in `root`, such as `6.12.117-1~deb12u1`, from the name of the file that was
/// downloaded.
pub(crate) fn version_in(root: &Path) -> Result<String, Error> {
    let path = root.join(CHECKSUMS);
    let sums = fs::read_to_string(&path).map_err(at(&path))?;
    let version = sums.split('_').nth(1).map(|version| version.replace("%3a", ":"));
    version
        .ok_or_else(|| Error::Failed(format!("{}: expected the name of a package in it, found none", path.display())))
}

/// Download `packages`, each a name or `NAME=VERSION`, into `folder` and unpack them there. What an interrupted download has left
/// is used.
///
/// # Errors
/// [`Error::Absent`] if they cannot be downloaded, or that is forbidden.
pub(crate) fn fetch(cache: &Cache, folder: &Path, packages: &[String], progress: Progress<'_>) -> Result<(), Error> {
    let downloads = downloads(cache, folder, packages)?;
    download(cache, &downloads, packages, progress)?;
    unpack(folder, &downloads, progress)
}

/// The same for the newest version of each that any suite has, whatever this machine's own package lists hold.
///
/// # Errors
/// As [`fetch`].
pub(crate) fn fetch_of_newest_suite(
    cache: &Cache,
    folder: &Path,
    packages: &[String],
    progress: Progress<'_>,
) -> Result<(), Error> {
    let downloads = downloads(cache, folder, packages)?;
    download_privately(cache, &downloads, packages, progress)?;
    unpack(folder, &downloads, progress)
}

/// The folder in `folder` that `packages` are downloaded into.
fn downloads(cache: &Cache, folder: &Path, packages: &[String]) -> Result<PathBuf, Error> {
    if cache.is_offline() {
        return Err(Error::Absent(format!(
            "expected what is unpacked of {} in {}, found nothing, and nothing is to be fetched; run once without --offline",
            packages.join(", "),
            cache.root().display()
        )));
    }
    let downloads = folder.join("packages");
    fs::create_dir_all(&downloads).map_err(at(&downloads))?;
    Ok(downloads)
}

/// Unpack what is in `downloads` in `folder`, write its checksums there, and remove the downloads.
fn unpack(folder: &Path, downloads: &Path, progress: Progress<'_>) -> Result<(), Error> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(downloads).map_err(at(downloads))?.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    files.sort();
    let names = files.iter().filter_map(|path| path.file_name());
    let sums = output(Command::new("sha256sum").args(names).current_dir(downloads), "coreutils")?;
    let path = folder.join(CHECKSUMS);
    fs::write(&path, sums).map_err(at(&path))?;
    for file in &files {
        progress(&format!("unpacking {}", file.file_name().unwrap_or_default().display()));
        output(Command::new("dpkg-deb").arg("-x").arg(file).arg(folder), "dpkg")?;
    }
    fs::remove_dir_all(downloads).map_err(at(downloads))
}

/// Download `packages` into `to`, by this machine's package lists if they have them, or else by the private ones.
fn download(cache: &Cache, to: &Path, packages: &[String], progress: Progress<'_>) -> Result<(), Error> {
    let own = match download_by(&Lists::OfMachine, cache, to, packages, progress) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    download_privately(cache, to, packages, progress).map_err(|error| {
        Error::Absent(format!(
            "cannot download {}: {own}\n  nor by the package lists of Debian's suites: {error}\n  kernels that this machine's \
             package lists have: {}; bring them up to date with `apt-get update`, or name another with --kernel",
            packages.join(", "),
            available(&Lists::OfMachine).map_or_else(|error| error.to_string(), |names| names.join(", "))
        ))
    })
}

/// Download `packages` into `to` by the private package lists, which are brought up to date if they no longer hold.
fn download_privately(cache: &Cache, to: &Path, packages: &[String], progress: Progress<'_>) -> Result<(), Error> {
    let mut by = |renew| {
        let lists = Lists::private(cache, renew, progress)?;
        download_by(&lists, cache, to, packages, progress)
    };
    by(false).or_else(|_| by(true))
}

fn download_by(
    lists: &Lists,
    cache: &Cache,
    to: &Path,
    packages: &[String],
    progress: Progress<'_>,
) -> Result<(), Error> {
    let uris = output(lists.apt("apt-get").args(["download", "--print-uris"]).args(packages), "apt")?;
    let kept = cache.root().display();
    progress(&format!("downloading {}{} (once; kept in {kept})", packages.join(", "), size(&uris)));
    output(lists.apt("apt-get").arg("download").args(packages).current_dir(to), "apt").map(drop)
}

/// How much is downloaded, as `apt-get --print-uris` says: a line `'URI' FILE BYTES HASH` for each package.
fn size(uris: &[u8]) -> String {
    let uris = String::from_utf8_lossy(uris);
    let bytes: u64 = uris.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<u64>().ok()).sum();
    if bytes == 0 { String::new() } else { format!(", {} MB", bytes.div_ceil(1_000_000)) }
}

/// Remove the modules that no test has a use for.
fn prune(root: &Path) -> std::io::Result<()> {
    for modules in ["lib/modules", "usr/lib/modules"].map(|folder| root.join(folder)) {
        for release in fs::read_dir(modules).into_iter().flatten().flatten() {
            let kernel = release.path().join("kernel");
            remove_others(&kernel, &KEPT)?;
        }
    }
    Ok(())
}

/// Remove what is in `folder` and leads to none of the folders `kept`.
fn remove_others(folder: &Path, kept: &[&str]) -> std::io::Result<()> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if !entry.file_type()?.is_dir() || kept.iter().any(|kept| *name == **kept) {
            continue;
        }
        let below: Vec<&str> =
            kept.iter().filter_map(|kept| Path::new(kept).strip_prefix(&name).ok()?.to_str()).collect();
        if below.is_empty() { fs::remove_dir_all(path)? } else { remove_others(&path, &below)? }
    }
    Ok(())
}

/// The names of packages in `lists` that begin with `start`.
fn available_names(lists: &Lists, start: &str) -> Result<Vec<String>, Error> {
    let names = output(lists.apt("apt-cache").args(["pkgnames", start]), "apt")?;
    Ok(String::from_utf8_lossy(&names).lines().map(str::to_owned).collect())
}

/// The releases of all kernels in `lists`, ascending.
fn available(lists: &Lists) -> Result<Vec<String>, Error> {
    let release = |name: &String| {
        let release = name.strip_prefix(IMAGE)?;
        let version = release.strip_suffix(FLAVOUR)?;
        // Not the metapackages, and not the kernels for clouds and real time.
        let plain = !version.ends_with("-cloud") && !version.ends_with("-rt");
        (plain && version.matches('.').count() > 1).then(|| release.to_owned())
    };
    let mut releases: Vec<String> = available_names(lists, IMAGE)?.iter().filter_map(release).collect();
    releases.sort_by(|a, b| compare(a, b));
    Ok(releases)
}

/// The last of `available`, the kernels of `lists`, that is a `version`.
fn newest(version: &str, available: &[String], lists: &Lists) -> Result<String, Error> {
    let is_one = |release: &&String| {
        let rest = release.strip_prefix(version);
        rest.is_some_and(|rest| rest.starts_with(['.', '-', '+']))
    };
    available.iter().rev().find(is_one).cloned().ok_or_else(|| {
        let found = if available.is_empty() { "none at all".to_owned() } else { available.join(", ") };
        let next = match lists {
            Lists::OfMachine => "bring them up to date with `apt-get update`, or name another with --kernel",
            Lists::Private(_) => "name another with --kernel",
        };
        Error::Absent(format!("expected a kernel {version} in {}, found {found}; {next}", lists.name()))
    })
}

/// `names` from the newest version on.
pub(crate) fn newest_first(names: &mut [String]) {
    names.sort_by(|a, b| compare(b, a));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_version_is_taken() {
        let releases = ["6.1.0-9-amd64", "6.1.0-56-amd64", "6.12.9+deb12-amd64", "6.12.117+deb12-amd64"];
        let releases = releases.map(str::to_owned);
        let newest = |version: &str| newest(version, &releases, &Lists::OfMachine);
        assert_eq!(newest("6.1").unwrap(), "6.1.0-56-amd64");
        assert_eq!(newest("6.12").unwrap(), "6.12.117+deb12-amd64");
        assert_eq!(newest("6.12.9").unwrap(), "6.12.9+deb12-amd64");
        let Error::Absent(why) = newest("6.13").unwrap_err() else { panic!("there is no 6.13") };
        assert!(why.contains("expected a kernel 6.13") && why.contains("6.1.0-56-amd64"), "{why}");
    }

    #[test]
    fn modules_that_no_test_has_a_use_for_go() {
        let root = tempfile::tempdir().unwrap();
        let kernel = root.path().join("lib/modules/6.12/kernel");
        for folder in ["arch/x86/kvm", "net/ipv4", "drivers/virtio", "drivers/net/wireless"] {
            fs::create_dir_all(kernel.join(folder)).unwrap();
            fs::write(kernel.join(folder).join("one.ko"), "").unwrap();
        }
        prune(root.path()).unwrap();
        assert!(kernel.join("arch/x86/kvm/one.ko").exists() && kernel.join("drivers/virtio/one.ko").exists());
        assert!(!kernel.join("net").exists() && !kernel.join("drivers/net").exists());
    }

    #[test]
    fn the_size_of_a_download_is_told_in_megabytes() {
        let uris = "'http://host/a.deb' a_1.deb 14138336 SHA256:0\n'http://host/b.deb' b_1.deb 1000000 SHA256:0\n";
        assert_eq!(size(uris.as_bytes()), ", 16 MB");
        assert_eq!(size(b"\n"), "");
    }
}
