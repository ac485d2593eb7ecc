//! The lab: what it needs of this machine, and the stage that boots it.

use crate::fuzz;
use crate::gate::{Gate, Halt, Verdict};
use std::path::PathBuf;
use std::process::ExitCode;

/// Commands that the lab runs, the Debian package that has each, and what for. It installs none of them.
const COMMANDS: [(&str, &str, &str); 9] = [
    (QEMU, "qemu-system-x86", "the machine that the kernel boots in"),
    ("apt-get", "apt", "downloads Debian's kernels, which are unpacked and not installed"),
    ("apt-cache", "apt", "knows which kernels there are"),
    ("dpkg-deb", "dpkg", "unpacks packages"),
    ("sha256sum", "coreutils", "records what was downloaded"),
    ("xz", "xz-utils", "unpacks modules"),
    ("tar", "tar", "unpacks the kernel's source, for linux-kvm-stolen"),
    ("make", "make", "builds KVM, for linux-kvm-stolen"),
    ("gcc-12", "gcc-12", "the same; the compiler of Debian's kernels"),
];
const QEMU: &str = "qemu-system-x86_64";
const TARGET: &str = "linux-kvm-npt";
const RUNS: &str = "400";

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

/// A fixed-seed campaign in the lab. What the machine lacks is a reason to skip, what goes wrong in a lab is none.
pub(crate) fn smoke(gate: &Gate) -> Verdict {
    if find(QEMU).is_none() {
        return Err(Halt::Skipped(format!("no {QEMU} here; `cargo xtask lab` says how to get it")));
    }
    match fuzz::campaign(gate, TARGET, RUNS, TARGET) {
        Ok(_) => Ok(format!("{TARGET} {RUNS}")),
        Err(Halt::Failed(why)) if why.contains("cannot be used here") => {
            let line = why.lines().find(|line| line.contains("cannot be used here")).unwrap_or_default();
            Err(Halt::Skipped(line.trim().to_owned()))
        }
        Err(halt) => Err(halt),
    }
}
