//! Source mutation: small changes of `kvm-mmu`, one at a time, each judged by a fixed campaign. What the campaign does not notice is
//! a blind spot of the oracles, a place that the generator does not reach, or no change of behaviour.
//!
//! The sources are copied to `target/mutants/tree` and built there. Programs are counted, not timed; only a change that makes the
//! MMU run for ever is ended by the clock, and counts as caught.

mod operators;

use crate::tree::Tree;
use operators::Mutation;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// The sources that are changed.
const SOURCES: &str = "targets/kvm-mmu/src/";
/// Of these not: mutants and the RFC's policy are wrong on purpose, and the campaign does not run them; the rest is not judged by it.
const LEFT_OUT: [&str; 5] = ["mutants", "policy/rfc_v3.rs", "adapter/export.rs", "sync.rs", "lib.rs"];
const BUILD: [&str; 8] =
    ["build", "--quiet", "--profile", "mutants", "--package", "kvm-mmu", "--no-default-features", "--example=campaign"];
/// How long the campaign may take, in multiples of what it takes on the sources as they are.
const PATIENCE: u32 = 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Caught,
    Hung,
    Missed,
    Unviable,
}

/// Makes `sample` mutants, drawn by `seed`, or all, and prints what became of each. The status is a failure if one was missed.
///
/// # Errors
/// If the sources cannot be copied, or the campaign fails on them as they are.
pub(crate) fn run(sample: Option<usize>, seed: u64) -> Result<ExitCode, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let tree = Tree::read(&root)?;
    let mutations = mutations(&tree);
    let lab = Lab::new(&root, &tree)?;
    let limit = lab.baseline()? * PATIENCE + Duration::from_secs(10);
    let drawn = draw(mutations.len(), sample.unwrap_or(mutations.len()), seed);
    println!("{} of {} mutants", drawn.len(), mutations.len());
    let mut outcomes = Vec::new();
    for at in drawn {
        let (path, source, mutation) = &mutations[at];
        let outcome = lab.judge(path, source, mutation, limit)?;
        println!("{:<9} {path}:{}: {}", format!("{outcome:?}").to_lowercase(), mutation.line, mutation.what);
        outcomes.push(outcome);
    }
    let count = |wanted: &[Outcome]| outcomes.iter().filter(|outcome| wanted.contains(outcome)).count();
    let (caught, missed) = (count(&[Outcome::Caught, Outcome::Hung]), count(&[Outcome::Missed]));
    println!("{caught} caught, {missed} missed, {} unviable", count(&[Outcome::Unviable]));
    if let Some(percent) = (100 * caught).checked_div(caught + missed) {
        println!("{percent} % of the viable mutants are caught");
    }
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Every mutation of the sources, with the path and text of the file.
fn mutations(tree: &Tree) -> Vec<(&str, &str, Mutation)> {
    let sources = tree.files().filter(|(path, _)| {
        let name = path.strip_prefix(SOURCES).filter(|name| name.ends_with(".rs"));
        name.is_some_and(|name| !LEFT_OUT.iter().any(|out| name.starts_with(out)))
    });
    sources.flat_map(|(path, text)| operators::mutations(text).into_iter().map(move |m| (path, text, m))).collect()
}

/// `wanted` numbers below `all`, in order. The same for the same seed.
fn draw(all: usize, wanted: usize, seed: u64) -> Vec<usize> {
    let mut state = seed;
    // SplitMix64, by which each number gets a key; those with the lowest keys are drawn.
    let mut key = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    };
    let mut keyed: Vec<(u64, usize)> = (0..all).map(|at| (key(), at)).collect();
    keyed.sort_unstable();
    let mut drawn: Vec<usize> = keyed.into_iter().take(wanted).map(|(_, at)| at).collect();
    drawn.sort_unstable();
    drawn
}

/// A copy of the sources, in which they are changed, built and run.
struct Lab {
    tree: PathBuf,
    build: PathBuf,
}

impl Lab {
    fn new(root: &Path, tree: &Tree) -> Result<Self, String> {
        let folder = root.join("target/mutants");
        let lab = Self { tree: folder.join("tree"), build: folder.join("build") };
        for (path, text) in tree.files() {
            lab.write(path, text)?;
        }
        Ok(lab)
    }

    /// Writes the file, unless it is as it should be: an unchanged file keeps its time, and is not built again.
    fn write(&self, path: &str, text: &str) -> Result<(), String> {
        let to = self.tree.join(path);
        if std::fs::read(&to).is_ok_and(|old| old == text.as_bytes()) {
            return Ok(());
        }
        let written = to.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&to, text));
        written.map_err(|error| format!("{}: {error}", to.display()))
    }

    /// Whether the sources can be built as they are now.
    fn build(&self) -> Result<bool, String> {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(BUILD).current_dir(&self.tree).env("CARGO_TARGET_DIR", &self.build).stderr(Stdio::null());
        cargo.status().map(|status| status.success()).map_err(|error| format!("cargo cannot be run: {error}"))
    }

    /// Whether an oracle objects; nothing if the campaign did not end within `limit`.
    fn campaign(&self, limit: Duration) -> Result<Option<bool>, String> {
        let mut campaign = Command::new(self.build.join("mutants/examples/campaign"));
        let mut child = campaign
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("the campaign cannot be run: {error}"))?;
        let begun = Instant::now();
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(Some(!status.success())),
                Ok(None) if begun.elapsed() < limit => std::thread::sleep(Duration::from_millis(20)),
                Ok(None) => {
                    let _killed = child.kill().and_then(|()| child.wait());
                    return Ok(None);
                }
                Err(error) => return Err(format!("the campaign was lost: {error}")),
            }
        }
    }

    /// How long the campaign takes on the sources as they are, where no oracle may object.
    fn baseline(&self) -> Result<Duration, String> {
        if !self.build()? {
            return Err("the sources cannot be built as they are; try `cargo build`".into());
        }
        let begun = Instant::now();
        match self.campaign(Duration::MAX)? {
            Some(false) => Ok(begun.elapsed()),
            _ => Err("an oracle objects to the sources as they are; run the example `campaign` to see why".into()),
        }
    }

    fn judge(&self, path: &str, source: &str, mutation: &Mutation, limit: Duration) -> Result<Outcome, String> {
        self.write(path, &mutation.apply(source))?;
        let outcome = match self.build()? {
            false => Outcome::Unviable,
            true => match self.campaign(limit)? {
                Some(true) => Outcome::Caught,
                Some(false) => Outcome::Missed,
                None => Outcome::Hung,
            },
        };
        self.write(path, source)?;
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_drawn_by_its_seed_alone_and_has_no_number_twice() {
        let drawn = draw(1000, 50, 7);
        assert_eq!(drawn, draw(1000, 50, 7));
        assert_ne!(drawn, draw(1000, 50, 8));
        assert!(drawn.len() == 50 && drawn.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(draw(3, 10, 1), [0, 1, 2]);
    }
}
