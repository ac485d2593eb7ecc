//! The table of stages. Everything heavy is built once, in the release profile; clippy and rustdoc only check.

use crate::gate::{Gate, Stage, Verdict};
use crate::{fuzz, hardware, lab, readme, rules, snapshots, threads};

pub(crate) const STAGES: [Stage; 18] = [
    Stage { name: "format", what: "rustfmt changes nothing", check: format },
    Stage { name: "clippy", what: "no lint of the workspace table fires", check: clippy },
    Stage { name: "rules", what: "the architecture is as designed", check: rules::check },
    Stage { name: "tests", what: "unit and integration tests", check: tests },
    Stage { name: "docs", what: "doc tests pass and rustdoc has nothing to say", check: docs },
    Stage { name: "races", what: "no interleaving of threads leaves anything stale or lost", check: threads::races },
    Stage { name: "miri", what: "an interpreter sees no undefined behaviour", check: threads::miri },
    Stage { name: "kill-matrix", what: "every mutant dies by the oracle named for it", check: kill_matrix },
    Stage { name: "corpus", what: "every corpus file parses, prints back identically and runs", check: corpus },
    Stage { name: "snapshots", what: "no snapshot is pending, stale or without its test", check: snapshots::check },
    Stage { name: "fuzz", what: "a fixed-seed campaign is clean on every target", check: fuzz::clean },
    Stage { name: "third-party", what: "nothing new is found in crates of other projects", check: third_party },
    Stage { name: "repeat", what: "the same seed gives the same campaign, byte for byte", check: fuzz::repeats },
    Stage { name: "exhaust", what: "every program of a small scope is clean", check: fuzz::exhaust },
    Stage { name: "traces", what: "recorded hardware traces agree with the model", check: hardware::traces },
    Stage { name: "kvm", what: "a fixed-seed campaign is clean on the host's /dev/kvm", check: hardware::kvm },
    Stage { name: "lab", what: "a fixed-seed campaign is clean on Linux KVM in the lab", check: lab::smoke },
    Stage { name: "readme", what: "the README's commands, programs and links work", check: readme::check },
];

fn format(gate: &Gate) -> Verdict {
    gate.expect(0, &mut gate.cargo(&["fmt", "--all", "--check"]))?;
    Ok(String::new())
}

fn clippy(gate: &Gate) -> Verdict {
    gate.expect(0, &mut gate.cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    // As a hypervisor takes it: without mutants.
    let bare = ["clippy", "-p", "kvm-mmu", "--no-default-features", "--all-targets", "--", "-D", "warnings"];
    gate.expect(0, &mut gate.cargo(&bare))?;
    let guests = ["clippy", "-p", "gpafuzz", "--features", "third-party", "--all-targets", "--", "-D", "warnings"];
    gate.expect(0, &mut gate.cargo(&guests))?;
    Ok(String::new())
}

/// The whole suite in one build. Insta notes every snapshot that a test looks at, for the stage `snapshots`.
fn tests(gate: &Gate) -> Verdict {
    let record = gate.snapshot_record();
    let _ = std::fs::remove_file(&record);
    let mut command = gate.cargo(&["test", "--workspace", "--release", "--all-targets", "--no-fail-fast"]);
    gate.expect(0, command.env("INSTA_SNAPSHOT_REFERENCES_FILE", record))?;
    gate.note_tests_ran();
    Ok(String::new())
}

fn docs(gate: &Gate) -> Verdict {
    gate.expect(0, &mut gate.cargo(&["test", "--workspace", "--release", "--doc", "--no-fail-fast"]))?;
    let mut command = gate.cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"]);
    gate.expect(0, command.env("RUSTDOCFLAGS", "-D warnings"))?;
    Ok(String::new())
}

/// Built once more, because who wants the tool does not want these crates.
fn third_party(gate: &Gate) -> Verdict {
    let test = ["test", "-p", "gpafuzz", "--release", "--features", "third-party", "--test", "third_party"];
    gate.expect(0, &mut gate.cargo(&test))?;
    Ok(String::new())
}

/// Named through the workspace, not the package, so that cargo takes the build of the stage `tests`.
fn kill_matrix(gate: &Gate) -> Verdict {
    gate.expect(0, &mut gate.cargo(&["test", "--workspace", "--release", "--test", "kill_matrix"]))?;
    Ok(String::new())
}

/// Every crate whose tests read the corpus calls that test `corpus`.
fn corpus(gate: &Gate) -> Verdict {
    gate.expect(0, &mut gate.cargo(&["test", "--workspace", "--release", "--test", "corpus"]))?;
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
