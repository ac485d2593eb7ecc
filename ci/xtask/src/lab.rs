//! The lab: what it needs of this machine, and the stage that boots it.

use crate::fuzz;
use crate::gate::{Gate, Halt, Verdict};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

/// Commands that the lab runs, the Debian package that has each, and what for. It installs none of them.
const COMMANDS: [(&str, &str, &str); 13] = [
    (QEMU, PACKAGE, "the machine that the kernel boots in"),
    ("apt-get", "apt", "downloads Debian's kernels, which are unpacked and not installed"),
    ("apt-cache", "apt", "knows which kernels there are"),
    ("dpkg-deb", "dpkg", "unpacks packages"),
    ("sha256sum", "coreutils", "records what was downloaded"),
    ("xz", "xz-utils", "unpacks modules"),
    ("tar", "tar", "unpacks the kernel's source, for linux-kvm-stolen"),
    ("make", "make", "builds KVM, for linux-kvm-stolen"),
    ("gcc-12", "gcc-12", "the same; the compiler of Debian's kernels"),
    ("bochs-bin", "bochs bochs-term", "the machine with EPT, for linux-kvm-ept"),
    ("grub-mkrescue", "grub-common grub-pc-bin", "makes the disc that this one boots from"),
    ("xorriso", "xorriso", "the same"),
    ("mformat", "mtools", "the same"),
];
const QEMU: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";
const TARGET: &str = "linux-kvm-npt";
const RUNS: &str = "400";
/// What begins the name of the folder of the lab's cache in which KVM is built.
const KBUILD: &str = "kbuild-";

/// `cargo xtask lab`: say what the lab needs of this machine, and what of it is missing.
pub(crate) fn needs() -> ExitCode {
    let missing: Vec<&str> =
        COMMANDS.iter().filter(|(name, ..)| find(name).is_none()).map(|(_, package, _)| *package).collect();
    for (name, package, why) in COMMANDS {
        let found = find(name).map_or_else(|| "MISSING".to_owned(), |path| path.display().to_string());
        println!("{name:<20} {found:<30} {package}: {why}");
    }
    if missing.is_empty() {
        println!("the lab has all it needs");
        return ExitCode::SUCCESS;
    }
    println!("to install what is missing: apt-get install --no-install-recommends {}", missing.join(" "));
    ExitCode::FAILURE
}

/// Where `command` is.
fn find(command: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(command)).find(|file| file.is_file())
}

/// A fixed-seed campaign in the lab, and, where KVM has been built before, what is asked of the patched ones. What the machine lacks
/// is a reason to skip, what goes wrong in a lab is none.
pub(crate) fn smoke(gate: &Gate) -> Verdict {
    install(gate)?;
    match fuzz::campaign(gate, TARGET, RUNS, TARGET) {
        Ok(_) => Ok(format!("{TARGET} {RUNS}; {}", patched(gate)?)),
        Err(Halt::Failed(why)) if why.contains("cannot be used here") => {
            let line = why.lines().find(|line| line.contains("cannot be used here")).unwrap_or_default();
            Err(Halt::Skipped(line.trim().to_owned()))
        }
        Err(halt) => Err(halt),
    }
}

/// See to it that there is a QEMU, as far as that is ours to do.
fn install(gate: &Gate) -> Result<(), Halt> {
    let skipped = |why: &str| Err(Halt::Skipped(format!("no {QEMU} here{why}; `cargo xtask lab` says how to get it")));
    if find(QEMU).is_some() {
        return Ok(());
    }
    if find("apt-get").is_none() || !fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        return skipped("");
    }
    let mut apt = Command::new("apt-get");
    apt.args(["install", "--yes", "--no-install-recommends", PACKAGE]).env("DEBIAN_FRONTEND", "noninteractive");
    match gate.status(apt.stdin(Stdio::null()))? {
        0 => Ok(()),
        status => skipped(&format!(", and `apt-get install {PACKAGE}` ended with {status}")),
    }
}

/// Building the patched KVM begins with a large download, so the first build is left to whoever wants the patched kernels; from then
/// on it takes a minute at most, and nothing as long as the script does not change.
fn patched(gate: &Gate) -> Verdict {
    let is_tree = |name: &str| name.starts_with(KBUILD) && !name.ends_with(".new");
    let mut entries = cache().and_then(|cache| fs::read_dir(cache).ok()).into_iter().flatten().flatten();
    if !entries.any(|entry| is_tree(&entry.file_name().to_string_lossy())) {
        return Ok("patched kernels not checked: KVM was never built here".to_owned());
    }
    gate.expect(0, &mut gate.cargo(&["test", "--workspace", "--release", "--test", "lab", "--", "--ignored"]))?;
    Ok("with its gaps closed the patched kernel is clean, and with mask 0 like the stock one".to_owned())
}

/// Where the lab keeps what it has fetched and built, by the rule of its `Cache::of_user`.
fn cache() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from);
    let base = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
    folder("GPAFUZZ_LAB").or_else(|| base.map(|base| base.join("gpafuzz-lab")))
}
