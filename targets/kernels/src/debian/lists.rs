//! Package lists: those of this machine, and private ones of every suite that has kernels.
//!
//! The private lists lie in the cache, as do all files that apt writes for them. They are signed, and the signature is checked with
//! the keyring that Debian's own machines have.

use crate::command::output;
use crate::error::{Error, at};
use crate::{Cache, Progress};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The keyring that Debian's releases are signed with, and the package that has it.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const KEYRING_PACKAGE: &str = "debian-archive-keyring";
/// The suites that have kernels, with the archive that each is in.
const SUITES: [(&str, &str); 7] = [
    ("debian", "bookworm"),
    ("debian-security", "bookworm-security"),
    ("debian", "bookworm-backports"),
    ("debian", "trixie"),
    ("debian-security", "trixie-security"),
    ("debian", "trixie-backports"),
    ("debian", "sid"),
];
const ARCHIVE: &str = "http://deb.debian.org";
/// The folder of the cache that the private lists are in.
const FOLDER: &str = "lists";
/// The file in it that apt is told by what to do.
const SETTINGS: &str = "apt.conf";
/// What says that the lists are whole.
const WHOLE: &str = "whole";
/// Lists that are older are brought up to date before anything is looked up in them.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// Package lists that apt looks into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lists {
    /// Those of this machine, which are left as they are.
    OfMachine,
    /// Those in this folder of the cache.
    Private(PathBuf),
}

impl Lists {
    /// The private lists, brought up to date if they are old, or if `renew` says so.
    ///
    /// # Errors
    /// [`Error::Absent`] if that is forbidden or impossible.
    pub(super) fn private(cache: &Cache, renew: bool, progress: Progress<'_>) -> Result<Self, Error> {
        let root = cache.root().join(FOLDER);
        let lists = Self::Private(root.clone());
        let age = || fs::metadata(root.join(WHOLE)).ok()?.modified().ok()?.elapsed().ok();
        let is_fresh = |age: Duration| age < FRESH && !renew;
        if cache.is_offline() || age().is_some_and(is_fresh) {
            return Ok(lists);
        }
        let before = age();
        let _lock = cache.lock(FOLDER, progress)?;
        // Another process has just done so.
        if age().is_some_and(|age| before.is_none_or(|before| age < before) && age < FRESH) {
            return Ok(lists);
        }
        if !Path::new(KEYRING).is_file() {
            return Err(Error::Absent(format!(
                "expected Debian's keyring in {KEYRING}, found none; install the package {KEYRING_PACKAGE}"
            )));
        }
        progress("fetching the package lists of Debian's suites (about 30 MB)");
        prepare(&root).map_err(at(&root))?;
        let update = output(lists.apt("apt-get").args(["--quiet", "update", "--error-on=any"]), "apt");
        if update.is_err() && before.is_none() {
            // There is nothing in it that could be used.
            let _ = fs::remove_dir_all(&root);
        }
        update.map_err(|error| Error::Absent(format!("cannot fetch the package lists of Debian's suites: {error}")))?;
        fs::write(root.join(WHOLE), "").map_err(at(&root))?;
        Ok(lists)
    }

    /// One of apt's commands, which looks into these lists.
    pub(super) fn apt(&self, command: &str) -> Command {
        let mut apt = Command::new(command);
        if let Self::Private(root) = self {
            apt.env("APT_CONFIG", root.join(SETTINGS));
        }
        apt
    }

    /// What these lists are called in errors.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::OfMachine => "this machine's package lists",
            Self::Private(_) => "the package lists of Debian's suites",
        }
    }
}

/// What apt wants to find in the folder of private lists.
fn prepare(root: &Path) -> io::Result<()> {
    for folder in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(root.join(folder))?;
    }
    let source = |(archive, suite): &(&str, &str)| {
        format!("deb [arch=amd64 signed-by={KEYRING}] {ARCHIVE}/{archive} {suite} main\n")
    };
    fs::write(root.join("sources.list"), SUITES.iter().map(source).collect::<String>())?;
    // How this machine reaches an archive, by which proxy for instance, holds here too.
    let reach =
        Command::new("apt-config").args(["dump", "Acquire"]).output().map_or_else(|_| Vec::new(), |dump| dump.stdout);
    fs::write(root.join(SETTINGS), String::from_utf8_lossy(&reach).into_owned() + &settings(root))
}

/// What apt is told. The machine's own settings are not read: among them are commands to be run after an update.
fn settings(root: &Path) -> String {
    let place = |name: &str| root.join(name).display().to_string();
    let (sources, lists, cache) = (place("sources.list"), place("lists"), place("cache"));
    [
        ("Dir::Etc::main", "/dev/null"),
        ("Dir::Etc::parts", "/dev/null"),
        ("Dir::Etc::sourcelist", &sources),
        ("Dir::Etc::sourceparts", "/dev/null"),
        ("Dir::State::lists", &lists),
        ("Dir::Cache", &cache),
        ("APT::Architecture", "amd64"),
        ("Acquire::Languages", "none"),
        ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false"),
        // The folder is closed to the user that apt would become for downloads.
        ("APT::Sandbox::User", "root"),
    ]
    .iter()
    .map(|(name, value)| format!("{name} \"{value}\";\n"))
    .collect()
}
