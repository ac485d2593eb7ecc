//! `cargo xtask setup`: what the gate and the lab need of a machine, what it is for, and installing what is missing.
//!
//! No stage installs anything. A stage that lacks something is skipped and says so.

use std::process::{Command, ExitCode, Stdio};

/// Something that this project uses and does not build.
struct Need {
    /// The commands; all must be there.
    commands: &'static [&'static str],
    from: Source,
    /// What it is for.
    why: &'static str,
    /// Whether `cargo xtask test` uses it. The rest is installed by `setup --all` alone.
    in_gate: bool,
}

/// Where a [`Need`] comes from.
enum Source {
    /// Packages of Debian's or Ubuntu's.
    Apt(&'static [&'static str]),
    /// `rustup component add`, for the toolchain in use.
    Component(&'static str),
    /// `rustup toolchain install nightly`, with these components.
    Nightly(&'static [&'static str]),
}

const fn need(in_gate: bool, commands: &'static [&'static str], from: Source, why: &'static str) -> Need {
    Need { commands, from, why, in_gate }
}

use Source::{Apt, Component, Nightly};

const NEEDS: [Need; 10] = [
    need(true, &["cargo-fmt"], Component("rustfmt"), "stage format"),
    need(true, &["cargo-clippy"], Component("clippy"), "stage clippy"),
    need(true, &["qemu-system-x86_64"], Apt(&["qemu-system-x86"]), "boots kernels: stage lab"),
    need(true, &["apt-get", "dpkg-deb", "xz"], Apt(&["dpkg", "xz-utils"]), "fetches kernels: stage lab"),
    need(
        true,
        &["gcc", "ld"],
        Apt(&["gcc", "binutils"]),
        "compiles the part that needs a kernel's headers: stage worker",
    ),
    need(false, &[], Nightly(&["miri", "rust-src"]), "stage miri"),
    need(false, &["make", "gcc-12"], Apt(&["make", "gcc-12"]), "builds patched KVMs: stage lab-patched"),
    need(false, &["bochs-bin"], Apt(&["bochs", "bochs-term"]), "a machine with EPT: targets linux-kvm-ept…"),
    need(false, &["grub-mkrescue"], Apt(&["grub-common", "grub-pc-bin"]), "the disc for Bochs"),
    need(false, &["xorriso", "mformat"], Apt(&["xorriso", "mtools"]), "the same"),
];

/// What to do about what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Say it.
    List,
    /// Install what `cargo xtask test` uses.
    Gate,
    /// Install everything.
    All,
}

/// Say what is there and what is missing, and install it. The status says whether all that was to be installed is there.
pub(crate) fn run(mode: Mode) -> ExitCode {
    let mut complete = true;
    for need in &NEEDS {
        let name = name(need);
        if is_here(need) {
            if mode != Mode::Gate {
                println!("setup        found    {name}: {}", need.why);
            }
            continue;
        }
        let wanted = mode == Mode::All || (mode == Mode::Gate && need.in_gate);
        if mode != Mode::Gate || wanted {
            println!("setup        missing  {name}: {}", need.why);
        }
        if wanted {
            complete &= install(need);
        }
    }
    if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn name(need: &Need) -> String {
    match need.from {
        Nightly(components) => format!("nightly Rust with {}", components.join(", ")),
        _ => need.commands.join(", "),
    }
}

fn is_here(need: &Need) -> bool {
    match need.from {
        Nightly(_) => has_miri(),
        _ => need.commands.iter().all(|command| find(command)),
    }
}

/// Whether `cargo miri` can be run.
pub(crate) fn has_miri() -> bool {
    let mut miri = Command::new("rustup");
    miri.args(["run", "nightly", "cargo", "miri", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    miri.status().is_ok_and(|status| status.success())
}

/// Whether a folder of the path has this command; cargo's own, which rustup may only stand in for, are asked for their version.
fn find(command: &str) -> bool {
    if let Some(subcommand) = command.strip_prefix("cargo-") {
        let mut cargo = Command::new("cargo");
        cargo.args([subcommand, "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
        return cargo.status().is_ok_and(|status| status.success());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(command).is_file())
}

/// Install it, with the command shown first; `false` if that is not possible.
fn install(need: &Need) -> bool {
    let (update, install): (&[&str], Vec<&str>) = match need.from {
        Component(component) => (&[], vec!["rustup", "component", "add", component]),
        Nightly(components) => (
            &[],
            [&["rustup", "toolchain", "install", "nightly", "--profile", "minimal", "--component"], components]
                .concat(),
        ),
        Apt(packages) => {
            (&["apt-get", "update"], [&["apt-get", "install", "--yes", "--no-install-recommends"], packages].concat())
        }
    };
    [update, &install].into_iter().filter(|words| !words.is_empty()).all(|words| {
        println!("setup        runs     {}", words.join(" "));
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(Stdio::null());
        let done = command.status().is_ok_and(|status| status.success());
        if !done {
            println!("setup        FAILED   run that as root, or do without: the stages that need it are skipped");
        }
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_here_is_told_from_what_is_missing() {
        let is_here = |commands| is_here(&need(true, commands, Apt(&[]), ""));
        assert!(
            is_here(&["sh"]) && !is_here(&["sh", "no-such-command-at-all"]) && !is_here(&["cargo-no-such-command"])
        );
    }
}
