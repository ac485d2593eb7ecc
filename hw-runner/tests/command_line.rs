//! The command line: what each command prints, and its exit status.

mod command;

use command::{TRACE, hw_runner};
use hw_runner::cli::Status;
use std::fs;
use std::process::{Command, Stdio};

fn verify(change: impl Fn(&str) -> String) -> (Status, String) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("x.trace");
    fs::write(&path, change(TRACE)).expect("a file");
    hw_runner(dir.path(), &["verify", path.to_str().expect("a path")])
}

#[test]
fn a_clean_trace() {
    let (status, said) = verify(str::to_owned);
    assert_eq!(status, Status::Clean);
    insta::assert_snapshot!(said, @"x.trace: clean: 3 ops judged, 0 skipped, 0 unsupported; 4 checks");
}

#[test]
fn a_trace_that_proves_nothing_is_not_called_clean() {
    let (status, said) = verify(|trace| {
        let vm_only: Vec<&str> = trace.lines().take(7).collect();
        vm_only.join("\n")
    });
    assert_eq!(status, Status::Clean);
    insta::assert_snapshot!(said, @"x.trace: vacuous, nothing could be judged: 0 ops judged, 0 skipped, 0 unsupported; 0 checks");
}

#[test]
fn without_the_native_witness_right_answers_count_for_nothing() {
    let (status, said) = verify(|trace| trace.replace("native yes", "native no"));
    assert_eq!(status, Status::Clean);
    assert!(said.contains("; vacuous: progress, gfn_unalias"), "{said}");
}

#[test]
fn an_objection_prints_the_report() {
    let (status, said) = verify(|trace| trace.replace("dirty 0x1e1", "dirty none"));
    assert_eq!(status, Status::Findings);
    insta::assert_snapshot!(said);
}

#[test]
fn every_variant_is_explained_or_not() {
    let sampled = |trace: &str, variant: &str| {
        let long = trace.replace("gpafuzz-trace 1\n", "gpafuzz-trace 2\ncpu TestCpu\nkernel 6.1\n");
        let long = long.replace("paging", "parameters\npaging").replace("native yes", "realisation slots\nnative yes");
        let long = long.replace("native yes\n", "native yes\nwitness\nsamples 10\n");
        format!("{long}v0 read 0x1e0\n  => memory 1\ndirty-get 0\n  => dirty 0x1e1\n  ~> 3 {variant}\n")
    };
    let (status, legal) = verify(|trace| sampled(trace, "dirty 0x1e0 0x1e1"));
    assert_eq!(status, Status::Clean, "{legal}");
    let (status, wrong) = verify(|trace| sampled(trace, "dirty 0x1e0"));
    assert_eq!(status, Status::Findings, "{wrong}");
    insta::assert_snapshot!(legal + &wrong);
}

#[test]
fn bad_traces_say_where_and_what_to_do() {
    let missing = verify(|trace| trace.replace("  => memory 2\n", ""));
    let wrong = verify(|trace| trace.replace("memory 2", "memory two"));
    assert_eq!((missing.0, wrong.0), (Status::BadInput, Status::BadInput));
    insta::assert_snapshot!(missing.1 + &wrong.1);
}

#[test]
fn unreadable_files_are_bad_input() {
    let dir = tempfile::tempdir().expect("a folder");
    let binary = dir.path().join("binary");
    fs::write(&binary, [0xff, 0xfe, 0]).expect("a file");
    let huge = dir.path().join("huge");
    fs::write(&huge, vec![b'#'; gpa_model::limits::FILE_BYTES + 1]).expect("a file");
    let absent = dir.path().join("absent");
    let paths = [&binary, &huge, &absent].map(|path| path.to_str().expect("a path"));
    let (status, said) = hw_runner(dir.path(), &[&["verify"], &paths[..]].concat());
    assert_eq!(status, Status::BadInput);
    insta::assert_snapshot!(said);
}

#[test]
fn record_refuses_what_it_could_not_write() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file");
    fs::write(&file, "in the way").expect("a file");
    let below = file.join("traces");
    let below = below.to_str().expect("a path");
    let (status, said) = hw_runner(dir.path(), &["record", "a.prog", "-o", below]);
    assert_eq!(status, Status::BadInput);
    let here = dir.path().to_str().expect("a path");
    let (again, twice) = hw_runner(dir.path(), &["record", "a/x.prog", "b/x.prog", "-o", here]);
    assert_eq!(again, Status::BadInput);
    insta::assert_snapshot!(said + &twice);
}

/// Verifies a clean trace with `stdout` as standard output: exit status and complaint.
fn verify_into(stdout: impl Into<Stdio>) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("x.trace");
    fs::write(&path, TRACE).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hw-runner"));
    let output = command.arg("verify").arg(path).stdout(stdout).stderr(Stdio::piped()).output().expect("it starts");
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

#[test]
fn an_output_that_takes_nothing_is_said_and_is_exit_status_2() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let expected = "expected to write the results to standard output, found: ";
    assert_eq!(verify_into(writer), (Some(2), format!("{expected}Broken pipe (os error 32)\n")));
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    assert_eq!(verify_into(full), (Some(2), format!("{expected}No space left on device (os error 28)\n")));
}

#[test]
fn control_characters_are_escaped() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("\u{1b}[31m\u{9b}x.trace");
    fs::write(&path, TRACE).expect("a file");
    let path = path.to_str().expect("a path");
    let (status, said) = hw_runner(dir.path(), &["verify", path]);
    assert_eq!(status, Status::Clean);
    assert!(said.starts_with("\\u{1b}[31m\\u{9b}x.trace: clean"), "{said}");
    let (status, said) = hw_runner(dir.path(), &["verify", &format!("{path}\u{7}")]);
    assert_eq!(status, Status::BadInput);
    assert!(said.starts_with("\\u{1b}[31m\\u{9b}x.trace\\u{7}: expected a readable file"), "{said}");
}
