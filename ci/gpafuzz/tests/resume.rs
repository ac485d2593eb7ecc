//! Campaigns that are killed, stopped, shared and gone on with come to what one that runs through comes to.

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// Programs of a campaign here: enough for several legs.
const RUNS: &str = "24000";
/// How often a campaign is killed.
const KILLS: u32 = 50;

fn fuzz(out: &Path, more: &[&str]) -> Command {
    fuzz_for(RUNS, out, more)
}

fn fuzz_for(runs: &str, out: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpafuzz"));
    command.args(["fuzz", "--target", "rfc-v3", "--seed", "3", "--runs", runs, "--out"]).arg(out).args(more);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// What a campaign in `out` comes to in the end: the part of its summary that no time and no place is in.
fn whole(out: &Path, more: &[&str]) -> Value {
    let summary = out.join("summary.json");
    let mut command = fuzz(out, more);
    let status = command.arg("--summary").arg(&summary).status().expect("gpafuzz runs");
    assert_eq!(status.code(), Some(0), "rfc-v3 has known findings only");
    let summary: Value = serde_json::from_slice(&fs::read(&summary).expect("a summary")).expect("JSON");
    assert_eq!(summary["interrupted"], false);
    summary["untimed"].clone()
}

/// Every finding in `out` is whole, and the checkpoint speaks of no other.
fn nothing_is_half_written(out: &Path) {
    for target in fs::read_dir(out.join("findings")).into_iter().flatten().flatten() {
        for finding in fs::read_dir(target.path()).expect("a folder").flatten() {
            let name = finding.file_name().to_string_lossy().into_owned();
            for file in ["program.prog", "minimized.prog", "report.txt", "finding.json"] {
                let there = finding.path().join(file).is_file();
                assert!(there || name.starts_with('.'), "{}: no {file}", finding.path().display());
            }
        }
    }
    let Ok(checkpoint) = fs::read(out.join("campaigns/rfc-v3.3.json")) else { return };
    let checkpoint: Value = serde_json::from_slice(&checkpoint).expect("a whole checkpoint");
    for finding in checkpoint["findings"].as_array().expect("findings") {
        let folder = out.join(finding["folder"].as_str().expect("a folder"));
        let moved = folder.with_file_name(format!(".{}.old", folder.file_name().unwrap().to_string_lossy()));
        assert!(folder.join("finding.json").is_file() || moved.join("finding.json").is_file(), "{}", folder.display());
    }
}

#[test]
fn killed_fifty_times_it_comes_to_the_same() {
    let (killed, through) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let mut lived = 0;
    for kill in 0..KILLS {
        let mut child = fuzz(killed.path(), &["--jobs", "2"]).spawn().expect("gpafuzz runs");
        // From before the first program to well into the campaign.
        sleep(Duration::from_millis(u64::from(kill * 37 % 150)));
        child.kill().expect("a kill");
        // A campaign that was over when the kill came has its own status.
        lived += u32::from(child.wait().expect("its end").code().is_some());
        nothing_is_half_written(killed.path());
    }
    assert!(lived < KILLS, "no campaign was killed");
    assert_eq!(whole(killed.path(), &[]), whole(through.path(), &[]));
}

#[test]
fn four_jobs_come_to_what_one_comes_to() {
    let (one, four) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    assert_eq!(whole(one.path(), &[]), whole(four.path(), &["--jobs", "4"]));
}

#[test]
fn a_campaign_that_is_over_is_not_run_again_but_told_again() {
    let out = tempfile::tempdir().expect("a folder");
    let first = whole(out.path(), &[]);
    assert_eq!(whole(out.path(), &[]), first);
    assert_eq!(whole(out.path(), &["--fresh"]), first);
}

#[test]
fn a_signal_ends_it_with_the_summary_and_its_own_status() {
    let out = tempfile::tempdir().expect("a folder");
    let summary = out.path().join("summary.json");
    for (signal, status) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        // Long enough to be interrupted, however slow the machine is.
        let mut command = fuzz_for("900000000", out.path(), &["--summary"]);
        let mut child = command.arg(&summary).spawn().expect("gpafuzz runs");
        while fs::read(out.path().join("campaigns/rfc-v3.3.json")).is_err() {
            assert_eq!(child.try_wait().expect("its state"), None, "it ended by itself");
            sleep(Duration::from_millis(5));
        }
        let sent = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().expect("kill");
        assert!(sent.success());
        assert_eq!(child.wait().expect("its end").code(), Some(status));
        let summary: Value = serde_json::from_slice(&fs::read(&summary).expect("a summary")).expect("JSON");
        assert_eq!(summary["interrupted"], true);
        assert!(summary["untimed"]["targets"][0]["executions"].as_u64() > Some(0));
        fs::remove_file(out.path().join("campaigns/rfc-v3.3.json")).expect("the checkpoint");
    }
}

#[test]
fn a_checkpoint_of_a_newer_version_is_refused() {
    let out = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(out.path().join("campaigns")).expect("a folder");
    fs::write(out.path().join("campaigns/rfc-v3.3.json"), r#"{"schema_version": 99}"#).expect("a file");
    let mut command = fuzz(out.path(), &[]);
    let output = command.stderr(Stdio::piped()).output().expect("gpafuzz runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("expected schema_version 1, found 99") && said.contains("--fresh"), "{said}");
}
