//! The command line, through the built binary.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const GPAFUZZ: &str = env!("CARGO_BIN_EXE_gpafuzz");

/// The shortest program in which the patches as posted ignore a flush error.
const G1: &str = "gpafuzz-program 1
vm stolen=40 vcpus=1 base=0x1e0 flush=fails-second
v0 read 0x1f0
slot 0 create gfn=0x1e0 pages=2 hva=0 log-dirty
v0 write 0x1e1@1
age hva=8 pages=1
dirty-clear 0 gfn=0x1e0 pages=2
";

struct Ran {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Run gpafuzz in `folder`.
fn gpafuzz(folder: &Path, args: &[&str]) -> Ran {
    let output = Command::new(GPAFUZZ).args(args).current_dir(folder).output().expect("gpafuzz runs");
    let text = |bytes| String::from_utf8(bytes).expect("output is text");
    Ran { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Every file below `folder` with what is in it.
fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("below").display().to_string();
                files.insert(name, fs::read(&path).expect("a file"));
            }
        }
    }
    files
}

#[test]
fn the_same_seed_does_the_same_byte_for_byte() {
    let args = ["fuzz", "--target", "rfc-v3", "--runs", "2000", "--seed", "5", "--summary", "summary.json"];
    let run = || {
        let folder = folder();
        let ran = gpafuzz(folder.path(), &args);
        assert_eq!(ran.status, Some(0), "what is known is no news: {}{}", ran.stdout, ran.stderr);
        let text = fs::read_to_string(folder.path().join("summary.json")).expect("a summary");
        let mut summary: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        (summary["untimed"].take(), tree(&folder.path().join("gpafuzz-out")))
    };
    let (first, second) = (run(), run());
    assert_eq!(first, second);
    let target = &first.0["targets"][0];
    assert_eq!(target["executions"], 2000);
    let gaps: Vec<_> = target["findings"].as_array().expect("findings").iter().map(|f| &f["known"]["gap"]).collect();
    assert!(gaps.iter().any(|gap| **gap == "G1") && gaps.iter().any(|gap| **gap == "G2"), "{gaps:?}");
    assert!(first.1.len() > 2);
}

#[test]
fn the_corrected_design_stays_clean_and_is_judged_by_every_oracle() {
    let folder = folder();
    let ran = gpafuzz(folder.path(), &["fuzz", "--target", "kvm-mmu", "--runs", "3000", "--summary", "s.json"]);
    assert_eq!(ran.status, Some(0), "{}{}", ran.stdout, ran.stderr);
    let text = fs::read_to_string(folder.path().join("s.json")).expect("a summary");
    let summary: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let mut checked = BTreeMap::new();
    for check in summary["untimed"]["targets"][0]["checks"].as_array().expect("checks") {
        *checked.entry(check["oracle"].to_string()).or_insert(0) += check["checked"].as_u64().expect("a count");
    }
    assert!(checked.values().all(|count| *count > 0), "{checked:?}");
}

/// The summary of as many programs on kvm-mmu as check every clause, and what was printed.
fn summary_of(more: &[&str]) -> (serde_json::Value, String) {
    let folder = folder();
    let args = ["fuzz", "--target", "kvm-mmu", "--runs", "30000", "--summary", "s.json"];
    let ran = gpafuzz(folder.path(), &[&args[..], more].concat());
    assert_eq!(ran.status, Some(0), "{}{}", ran.stdout, ran.stderr);
    let text = fs::read_to_string(folder.path().join("s.json")).expect("a summary");
    (serde_json::from_str(&text).expect("JSON"), ran.stdout)
}

#[test]
fn coverage_counts_every_judged_op_and_changes_nothing() {
    let ((plain, table), (watched, with_coverage)) = (summary_of(&[]), summary_of(&["--coverage"]));
    assert_eq!(plain["untimed"], watched["untimed"]);
    assert!(plain.get("coverage").is_none() && !table.contains("coverage of"));
    assert!(with_coverage.contains("\ncoverage of kvm-mmu\n"), "{with_coverage}");
    let coverage = &watched["coverage"][0];
    let situations = coverage["situations"].as_array().expect("situations");
    let counted: u64 = situations.iter().map(|situation| situation["count"].as_u64().expect("a count")).sum();
    assert_eq!(
        counted, watched["untimed"]["targets"][0]["ops"]["judged"],
        "the campaign is clean, so all ops returned"
    );
    let is = |situation: &serde_json::Value, wanted: [&str; 4]| {
        ["op", "outcome", "alias", "slot"].iter().zip(wanted).all(|(part, wanted)| situation[*part] == *wanted)
    };
    for wanted in [["write", "memory", "alias", "logged"], ["read", "mmio", "alias", "private"]] {
        assert!(situations.iter().any(|situation| is(situation, wanted)), "{wanted:?}: {situations:#?}");
    }
    for never in ["ops_never_judged", "clauses_never_checked"] {
        assert_eq!(coverage[never].as_array().map(Vec::len), Some(0), "{coverage:#}");
    }
}

#[test]
fn coverage_says_what_was_never_reached() {
    let ran = gpafuzz(folder().path(), &["fuzz", "--target", "kvm-mmu", "--runs", "1", "--coverage"]);
    let list = |label: &str| ran.stdout.lines().find_map(|line| line.trim().strip_prefix(label).map(str::to_owned));
    for label in ["ops never judged: ", "clauses never checked: "] {
        assert!(list(label).is_some_and(|list| list != "none"), "{}", ran.stdout);
    }
}

#[test]
fn a_new_finding_makes_the_status_1_and_its_line_replays_it() {
    let folder = folder();
    let ran = gpafuzz(folder.path(), &["fuzz", "--target", "mutant:M70-pt64-nostrip", "--runs", "500"]);
    assert_eq!(ran.status, Some(1), "{}{}", ran.stdout, ran.stderr);
    let line = ran.stdout.lines().find_map(|line| line.trim().strip_prefix("cargo run --release -- "));
    let args: Vec<&str> = line.expect("a line that replays it").split(' ').collect();
    let replayed = gpafuzz(folder.path(), &args);
    assert_eq!(replayed.status, Some(1));
    assert!(replayed.stdout.contains(">>>"), "{}", replayed.stdout);
    // The folder alone is enough: it says which target it was found on.
    let finding = Path::new(args[1]).parent().expect("a folder").display().to_string();
    assert_eq!(gpafuzz(folder.path(), &["replay", &finding]).stdout, replayed.stdout);
}

#[test]
fn minimize_keeps_the_signature() {
    let folder = folder();
    fs::write(folder.path().join("g1.prog"), G1).expect("a file");
    let ran = gpafuzz(folder.path(), &["minimize", "g1.prog", "--target", "rfc-v3", "-o", "small.prog"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(0), ""), "{}", ran.stderr);
    let printed = gpafuzz(folder.path(), &["minimize", "g1.prog", "--target", "rfc-v3"]).stdout;
    assert_eq!(fs::read_to_string(folder.path().join("small.prog")).expect("a program"), printed);
    let signature = |file| {
        let report = gpafuzz(folder.path(), &["replay", file, "--target", "rfc-v3"]).stdout;
        report.lines().rev().nth(1).map(str::to_owned)
    };
    assert_eq!(signature("small.prog"), signature("g1.prog"));
}

#[test]
fn a_file_that_is_too_large_is_refused() {
    let folder = folder();
    fs::write(folder.path().join("large.prog"), vec![b'#'; gpa_model::limits::FILE_BYTES + 1]).expect("a file");
    let ran = gpafuzz(folder.path(), &["replay", "large.prog"]);
    assert_eq!(ran.status, Some(2), "{}", ran.stdout);
    assert!(ran.stderr.contains("(limits::FILE_BYTES), found a larger file"), "{}", ran.stderr);
}

/// Two mutants that only the oracle meant for them can see.
const TWO: [&str; 5] = ["teeth", "--mutant", "M16-second-err-ignored", "--mutant", "M70-pt64-nostrip"];

#[test]
fn teeth_asks_the_oracle_meant_for_a_mutant_alone_if_another_objects_first() {
    let args = ["teeth", "--mutant", "M22-stolen-not-stored", "--seeds", "10"];
    let ran = gpafuzz(folder().path(), &args);
    assert_eq!(ran.status, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains(" 10/10 "), "{}", ran.stdout);
    assert!(ran.stdout.contains("its own oracle was then asked alone"), "{}", ran.stdout);
}

#[test]
fn teeth_as_json_is_the_same_every_time() {
    let args = [&TWO[..], &["--seeds", "2", "--json"]].concat();
    let (first, second) = (gpafuzz(folder().path(), &args), gpafuzz(folder().path(), &args));
    assert_eq!((first.status, &first.stdout), (Some(0), &second.stdout));
    let teeth: serde_json::Value = serde_json::from_str(&first.stdout).expect("JSON");
    assert_eq!((&teeth["schema_version"], teeth["mutants"].as_array().map(Vec::len)), (&1.into(), Some(2)));
    for row in teeth["mutants"].as_array().expect("rows") {
        assert_eq!(row["killed"], 2, "{row}");
        for hunt in row["hunts"].as_array().expect("hunts") {
            assert_eq!(hunt["caught"]["signature"]["oracle"], row["meant"]["oracle"]);
            assert!(hunt["caught"]["program"].as_str().is_some_and(|text| gpa_model::text::parse(text).is_ok()));
        }
    }
    assert!(teeth["equivalent"].as_array().is_some_and(|list| !list.is_empty()));
}

#[test]
fn ctrl_c_ends_a_campaign_with_its_summary() {
    let folder = folder();
    let mut child = Command::new(GPAFUZZ)
        .args(["fuzz", "--target", "kvm-mmu", "--seconds", "600"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("gpafuzz runs");
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("a line");
    assert!(line.starts_with("fuzzing kvm-mmu: seed 1"), "{line}");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(killed.success());
    let mut stdout = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut stdout).expect("text");
    assert_eq!(child.wait().expect("an end").code(), Some(130));
    assert!(stdout.contains("no oracle objects") && stdout.contains("digest"), "{stdout}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(GPAFUZZ).arg("targets").stdout(Stdio::piped()).spawn().expect("gpafuzz runs");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("an end").code(), Some(0));
}

#[test]
fn what_is_killed_leaves_whole_findings() {
    let folder = folder();
    let mut child = Command::new(GPAFUZZ)
        .args(["fuzz", "--target", "mutant:M03-unalias-wide", "--seconds", "600"])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("gpafuzz runs");
    let findings = folder.path().join("gpafuzz-out/findings/mutant-M03-unalias-wide");
    let start = Instant::now();
    while fs::read_dir(&findings).map_or(0, Iterator::count) < 3 && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().expect("a running campaign");
    child.wait().expect("an end");
    let mut whole = 0;
    for entry in fs::read_dir(&findings).expect("findings").map(|entry| entry.expect("an entry")) {
        // What starts with a dot was never reported as saved; the next campaign clears it away.
        if !entry.file_name().to_string_lossy().starts_with('.') {
            let ran = gpafuzz(folder.path(), &["replay", &entry.path().display().to_string()]);
            assert_eq!(ran.status, Some(1), "{}", ran.stderr);
            whole += 1;
        }
    }
    assert!(whole >= 2, "{whole} findings");
}

/// The table of `gpafuzz exhaust`, without how long it took.
fn untimed(stdout: &str) -> String {
    stdout.lines().filter(|line| !line.contains(" seconds, ")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn exhaust_finds_in_the_fewest_ops_and_its_line_replays_it() {
    let folder = folder();
    let target = "mutant:M5V-notifier-unchecked";
    let kinds = "slot-create,read,fault-begin,fault-end,unmap-begin";
    let ran = gpafuzz(folder.path(), &["exhaust", "--ops", "3", "--target", target, "--kinds", kinds]);
    assert_eq!(ran.status, Some(1), "{}", ran.stderr);
    insta::assert_snapshot!(untimed(&ran.stdout));
    let line = ran.stdout.lines().find_map(|line| line.trim().strip_prefix("cargo run --release -- "));
    let args: Vec<&str> = line.expect("a line that replays it").split(' ').collect();
    let replayed = gpafuzz(folder.path(), &args);
    assert_eq!(replayed.status, Some(1), "{}", replayed.stderr);
    // What is known is no news, here as in a campaign.
    assert_eq!(gpafuzz(folder.path(), &["exhaust", "--ops", "3", "--target", "rfc-v3"]).status, Some(0));
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_an_exploration_with_what_was_explored() {
    let folder = folder();
    let args = ["exhaust", "--ops", "6", "--frames", "4"];
    let mut child = Command::new(GPAFUZZ);
    let child = child.args(args).current_dir(folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().expect("gpafuzz runs");
    // It says what it does once it listens.
    let mut first = String::new();
    BufReader::new(child.stderr.as_mut().expect("stderr")).read_line(&mut first).expect("a line");
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(kill.success());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130));
    assert!(String::from_utf8_lossy(&output.stdout).contains("stopped before every program"));
}
