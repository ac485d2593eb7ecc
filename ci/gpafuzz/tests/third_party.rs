//! A short campaign on the crates of other projects finds what is known, and nothing else.

use std::process::Command;

/// Nothing is known of these.
const CLEAN: [&str; 4] = ["axaddrspace-linear-4k", "aarch64-paging-live", "x86_64", "hyperlight"];

#[test]
fn every_finding_in_a_third_party_crate_is_known() {
    let out = tempfile::tempdir().expect("a folder");
    let file = out.path().join("summary.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpafuzz"));
    command.args(["fuzz", "--target", "third-party", "--runs", "4000", "--seed", "1", "--out"]).arg(out.path());
    let ended = command.arg("--summary").arg(&file).output().expect("gpafuzz starts");
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{said}");
    let summary = std::fs::read_to_string(file).expect("a summary");
    let summary: serde_json::Value = serde_json::from_str(&summary).expect("JSON");
    let targets = summary["untimed"]["targets"].as_array().expect("a list of targets");
    assert_eq!(targets.len(), third_party::ALL.len());
    for target in targets {
        let (name, findings) = (target["target"].as_str().expect("a name"), target["findings"].as_array());
        let is_clean = findings.expect("a list of findings").is_empty();
        assert_eq!(is_clean, CLEAN.contains(&name), "{name}: if it was mended, it is not known any more\n{said}");
    }
}
