//! Bad conditions: each ends in a line that says what is wrong and an exit status, leaves nothing behind, and is over when it
//! is over.

use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const RUNNER: &str = env!("CARGO_BIN_EXE_hw-runner");
/// The exit status for what the environment lacks.
const ABSENT: Option<i32> = Some(3);

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether the runner works here at all; says why not.
fn works() -> bool {
    let output = Command::new(RUNNER).arg("probe").output().expect("the runner starts");
    if output.status.success() {
        return true;
    }
    println!("SKIPPED: {}", stderr(&output));
    false
}

#[test]
fn no_permission_is_said_with_what_to_do() {
    const NOBODY: u32 = 65534;
    match Command::new(RUNNER).arg("probe").uid(NOBODY).gid(NOBODY).output() {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => println!("SKIPPED: cannot become another user"),
        output => {
            let output = output.expect("the runner starts");
            if output.status.success() {
                return println!("SKIPPED: anybody may use /dev/kvm here");
            }
            assert_eq!(output.status.code(), ABSENT);
            assert!(stderr(&output).starts_with("expected /dev/kvm to open for reading and writing, found: "));
        }
    }
}

/// Under a limit that the shell sets; `limit` is what follows `ulimit`.
fn limited(limit: &str, command: &str) -> Output {
    let script = format!("ulimit {limit} && exec \"$0\" {command}");
    Command::new("sh").args(["-c", &script, RUNNER]).output().expect("a shell")
}

#[test]
fn short_memory_and_few_files_are_errors_and_no_panics() {
    if !works() {
        return;
    }
    // In KiB of addresses: enough to start, too little for the memory of a guest. And: no room for the files of four vCPUs.
    for (limit, command) in [("-v 16000", "probe"), ("-n 8", "probe"), ("-n 8", "stress --seconds 1")] {
        let output = limited(limit, command);
        let said = stderr(&output);
        assert_eq!(output.status.code(), ABSENT, "ulimit {limit}: {said}");
        assert!(said.contains("cannot ") && !said.contains("panicked"), "ulimit {limit}: {said}");
    }
    assert!(works(), "and nothing is left of it");
}

/// Processes of this runner whose first argument is `argument`.
fn running(argument: &str) -> usize {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    let name = Path::new(RUNNER).to_string_lossy().into_owned();
    lines.filter(|line| line.starts_with(format!("{name}\0{argument}\0").as_bytes())).count()
}

#[test]
fn a_runner_that_is_killed_leaves_nothing_behind() {
    if !works() {
        return;
    }
    let mut runner = Command::new(RUNNER);
    // A number that no other test uses tells its children from theirs.
    let mut stressed = runner
        .args(["stress", "--seconds", "61", "--realisation", "guest-ptes"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the runner starts");
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(stressed.try_wait().expect("a status"), None, "it still runs");
    stressed.kill().expect("to be killed");
    stressed.wait().expect("an end");
    // The child that a driver may have forked ends with its parent, but not before.
    let mut patience = 100;
    while running("stress\0--seconds\x0061") > 0 && patience > 0 {
        std::thread::sleep(Duration::from_millis(20));
        patience -= 1;
    }
    assert_eq!(running("stress\0--seconds\x0061"), 0, "a child is left");
    assert!(works(), "the next runner finds KVM in order");
}
