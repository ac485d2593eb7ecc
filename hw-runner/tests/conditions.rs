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

/// A library that stands between the runner and the kernel: the ioctl `REFUSED` fails with `ERRNO`, or returns `RESULT`.
const BETWEEN: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

int ioctl(int fd, unsigned long request, ...)
{
	static int (*kernel)(int, unsigned long, ...);
	const char *refused = getenv("REFUSED"), *number = getenv("ERRNO"), *result = getenv("RESULT");
	const char *only = getenv("ARGUMENT");
	va_list rest;
	void *argument;

	va_start(rest, request);
	argument = va_arg(rest, void *);
	va_end(rest);
	if (!kernel)
		kernel = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
	if (!refused || (unsigned)request != (unsigned)strtoul(refused, NULL, 16))
		return kernel(fd, request, argument);
	if (only && (unsigned long)argument != strtoul(only, NULL, 10))
		return kernel(fd, request, argument);
	if (result)
		return atoi(result);
	errno = atoi(number);
	return -1;
}
"#;

/// `hw-runner probe` on a KVM where that ioctl comes to that: its status, and what it says of what is wrong. `None` where there is no
/// compiler or no KVM.
fn probe_with(folder: &Path, settings: &[(&str, &str)]) -> Option<(Option<i32>, String)> {
    let (source, library) = (folder.join("between.c"), folder.join("between.so"));
    if !library.exists() {
        std::fs::write(&source, BETWEEN).expect("a file");
        let compiled =
            Command::new("gcc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
        match compiled {
            Err(error) => {
                println!("SKIPPED: expected the command gcc, found: {error}");
                return None;
            }
            Ok(status) => assert!(status.success(), "the library between the runner and the kernel does not compile"),
        }
    }
    let mut command = Command::new(RUNNER);
    command.arg("probe").env("LD_PRELOAD", &library).envs(settings.iter().copied());
    let output = command.output().expect("the runner starts");
    Some((output.status.code(), stderr(&output)))
}

#[test]
fn a_kvm_that_is_busy_old_poor_or_broken_is_said_to_be() {
    if !works() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (version, create_vm, check, run) = ("ae00", "ae01", "ae03", "ae80");
    let errno = |number: i32| number.to_string();
    let (busy, exists, memory) = (errno(libc::EBUSY), errno(libc::EEXIST), errno(libc::ENOMEM));
    // KVM_CAP_READONLY_MEM is number 81.
    for (settings, expected) in [
        (vec![("REFUSED", version), ("RESULT", "11")], "expected a KVM with version 12 of its interface"),
        (
            vec![("REFUSED", create_vm), ("ERRNO", &busy)],
            "expected KVM to make a VM, found it busy: Device or resource busy",
        ),
        (vec![("REFUSED", create_vm), ("ERRNO", &exists)], "expected KVM to make a VM, found it busy: File exists"),
        (vec![("REFUSED", create_vm), ("ERRNO", &memory)], "cannot create a VM: Cannot allocate memory"),
        (vec![("REFUSED", check), ("ARGUMENT", "81"), ("RESULT", "0")], "expected a KVM with KVM_CAP_READONLY_MEM"),
        (vec![("REFUSED", run), ("ERRNO", &memory)], "cannot let a vCPU complete its exit: Cannot allocate memory"),
    ] {
        let Some((status, said)) = probe_with(folder.path(), &settings) else { return };
        assert_eq!(status, ABSENT, "{settings:?}: {said}");
        assert!(said.starts_with(expected) && said.lines().count() == 1, "{settings:?}: {said}");
    }
}
