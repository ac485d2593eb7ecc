//! The table of stages. What is heavy is built once, in the release profile; clippy and rustdoc only check, in the same folder.

use crate::gate::{Gate, Halt, Stage, Verdict};
use crate::{fuzz, rules, setup, snapshots, worker};
use std::fs::OpenOptions;
use std::path::PathBuf;

pub(crate) const STAGES: [Stage; 17] = [
    Stage { name: "format", what: "rustfmt changes nothing", check: format },
    Stage { name: "clippy", what: "no lint of the workspace table fires", check: clippy },
    Stage {
        name: "rules",
        what: "the architecture is as designed, and links in documents lead to files",
        check: rules::check,
    },
    Stage {
        name: "tests",
        what: "unit and integration tests: corpus, kill matrix, README and docs among them",
        check: tests,
    },
    Stage { name: "docs", what: "doc tests pass and rustdoc has nothing to say", check: docs },
    Stage { name: "snapshots", what: "no snapshot is pending or without its test", check: snapshots::check },
    Stage {
        name: "checked",
        what: "with overflow checks and debug assertions, no random program panics",
        check: checked,
    },
    Stage { name: "races", what: "no interleaving of threads leaves anything stale or lost", check: races },
    Stage { name: "miri", what: "an interpreter sees no undefined behaviour", check: miri },
    Stage {
        name: "fuzz",
        what: "a fixed-seed campaign is clean on every target, and the same twice",
        check: fuzz::clean,
    },
    Stage { name: "third-party", what: "nothing new is found in crates of other projects", check: third_party },
    Stage { name: "exhaust", what: "every program of a small scope is clean", check: fuzz::exhaust },
    Stage { name: "traces", what: "recorded hardware traces agree with the model", check: traces },
    Stage { name: "kvm", what: "a fixed-seed campaign is clean on the host's /dev/kvm", check: kvm },
    Stage {
        name: "worker",
        what: "a fixed-seed campaign is clean on a kernel's own KVM in a process",
        check: worker::smoke,
    },
    Stage { name: "lab", what: "a fixed-seed campaign is clean on a stock kernel in the lab", check: lab },
    Stage {
        name: "lab-patched",
        what: "the patched kernel with its gaps closed is clean in the lab",
        check: lab_patched,
    },
];

/// Programs of a campaign on the host's KVM, and in the lab.
const KVM_RUNS: &str = "300";
const LAB_RUNS: &str = "400";
const LAB: &str = "linux-kvm-npt";
/// Where the lab keeps what it fetches and builds, by the rule of `kernels::Cache`, and how folders of a built KVM begin.
const CACHE: &str = "GPAFUZZ_LAB";
const BUILT: &str = "kbuild-";

fn format(gate: &Gate) -> Verdict {
    gate.expect(0, &mut gate.cargo(&["fmt", "--all", "--check"]))?;
    Ok(String::new())
}

fn clippy(gate: &Gate) -> Verdict {
    // The workspace; kvm-mmu as another project takes it, without mutants; gpafuzz with the targets of other projects.
    let choices: [&[&str]; 3] = [
        &["--workspace"],
        &["-p", "kvm-mmu", "--no-default-features"],
        &["-p", "gpafuzz", "--features", "third-party"],
    ];
    for choice in choices {
        let mut command = gate.cargo(&["clippy", "--release", "--all-targets"]);
        gate.expect(0, command.args(choice).args(["--", "-D", "warnings"]))?;
    }
    Ok(String::new())
}

/// The whole suite in one build. Insta notes every snapshot that a test looks at, for the stage `snapshots`.
fn tests(gate: &Gate) -> Verdict {
    let record = gate.snapshot_record();
    let _ = std::fs::remove_file(&record);
    let mut command = gate.cargo(&["test", "--workspace", "--release", "--all-targets", "--no-fail-fast"]);
    gate.expect(0, command.env(snapshots::RECORD_VARIABLE, record))?;
    gate.note_tests_ran();
    Ok(String::new())
}

fn docs(gate: &Gate) -> Verdict {
    gate.expect(0, &mut gate.cargo(&["test", "--workspace", "--release", "--doc", "--no-fail-fast"]))?;
    let mut command = gate.cargo(&["doc", "--workspace", "--release", "--no-deps", "--document-private-items"]);
    gate.expect(0, command.env("RUSTDOCFLAGS", "-D warnings"))?;
    Ok(String::new())
}

/// The core alone: LibAFL would take longer to build than all of this takes to run.
fn checked(gate: &Gate) -> Verdict {
    let command = ["test", "--profile", "checked", "-p", "kvm-mmu", "--test", "clean", "--test", "corpus"];
    gate.expect(0, &mut gate.cargo(&command))?;
    Ok(String::new())
}

/// The test that runs with real threads in the stage `tests`.
const THREADS: [&str; 5] = ["--package", "kvm-mmu", "--test", "threads", "--no-fail-fast"];

/// Once more under a scheduler that tries interleavings from a seed. Its locks replace the standard library's throughout the
/// crate, so it is a build of its own.
fn races(gate: &Gate) -> Verdict {
    let mut command = gate.cargo(&["test", "--release", "--target-dir"]);
    command.arg(gate.logs().join("shuttle")).args(THREADS).env("RUSTFLAGS", "--cfg shuttle");
    gate.expect(0, &mut command)?;
    Ok(String::new())
}

/// Under an interpreter that sees undefined behaviour and data races.
fn miri(gate: &Gate) -> Verdict {
    if !setup::has_miri() {
        return Err(Halt::Skipped("no nightly toolchain with Miri; `cargo xtask setup --all` installs it".into()));
    }
    let mut command = gate.tool("rustup", &["run", "nightly", "cargo", "miri", "test", "--target-dir"]);
    command.arg(gate.logs().join("miri")).args(THREADS);
    gate.expect(0, &mut command)?;
    Ok(String::new())
}

/// A build of its own, because a user of the tool does not need these crates.
fn third_party(gate: &Gate) -> Verdict {
    let test = ["test", "-p", "gpafuzz", "--release", "--features", "third-party", "--test", "third_party"];
    gate.expect(0, &mut gate.cargo(&test))?;
    Ok(String::new())
}

fn traces(gate: &Gate) -> Verdict {
    let folder = gate.root().join("corpus/hw");
    let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut traces: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "trace")).collect();
    traces.sort();
    if traces.is_empty() {
        return Err(Halt::failed("expected recorded traces corpus/hw/*.trace, found none; record some with hw-runner"));
    }
    gate.expect(0, gate.binary("hw-runner")?.arg("verify").args(&traces))?;
    Ok(format!("{} traces", traces.len()))
}

fn kvm(gate: &Gate) -> Verdict {
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        return Err(Halt::Skipped(format!("cannot open /dev/kvm for reading and writing: {error}")));
    }
    fuzz::campaign(gate, "kvm", KVM_RUNS, "kvm")?;
    Ok(format!("kvm {KVM_RUNS}"))
}

/// What the machine lacks is a reason to skip; what goes wrong in the lab is none.
fn lab(gate: &Gate) -> Verdict {
    match fuzz::campaign(gate, LAB, LAB_RUNS, LAB) {
        Ok(_) => Ok(format!("{LAB} {LAB_RUNS}")),
        Err(Halt::Failed(why)) if why.contains("cannot be used here") => {
            let line = why.lines().find(|line| line.contains("cannot be used here")).unwrap_or_default();
            Err(Halt::Skipped(line.trim().to_owned()))
        }
        Err(halt) => Err(halt),
    }
}

/// The first build of a patched KVM downloads 170 MB, which only a person decides on. From then on it takes a minute at most.
fn lab_patched(gate: &Gate) -> Verdict {
    let is_built = |name: &str| name.starts_with(BUILT) && !name.ends_with(".new");
    let folder = |name| std::env::var_os(name).map(PathBuf::from);
    let base = || folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
    let cache = folder(CACHE).or_else(|| base().map(|base| base.join("gpafuzz-lab")));
    let mut entries = cache.and_then(|cache| std::fs::read_dir(cache).ok()).into_iter().flatten().flatten();
    if !entries.any(|entry| is_built(&entry.file_name().to_string_lossy())) {
        let build = "gpafuzz fuzz --target linux-kvm-stolen-fixed --runs 1";
        return Err(Halt::Skipped(format!("the patched KVM was never built here; `{build}` builds it")));
    }
    gate.expect(0, &mut gate.cargo(&["test", "--workspace", "--release", "--test", "lab", "--", "--ignored"]))?;
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_their_column() {
        for (at, stage) in STAGES.iter().enumerate() {
            assert!(stage.name.len() <= 12 && !stage.what.is_empty(), "{}", stage.name);
            assert!(STAGES[..at].iter().all(|other| other.name != stage.name), "{} twice", stage.name);
        }
    }
}
