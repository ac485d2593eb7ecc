//! Bad conditions: each ends promptly with a line that says what is wrong and an exit status, and leaves
//! nothing behind.

use crate::{Outcome, Skipped, skip, trials};
use libtest_mimic::Trial;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const RUNNER: &str = env!("CARGO_BIN_EXE_hw-runner");
/// The exit status if the environment lacks something.
const ABSENT: Option<i32> = Some(3);

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    trials![
        no_permission_is_said_with_what_to_do,
        short_memory_and_few_files_are_errors_and_no_panics,
        a_runner_that_is_killed_leaves_nothing_behind,
        a_kvm_that_is_busy_old_poor_or_broken_is_said_to_be,
        a_call_that_fails_once_costs_its_program_and_no_other,
    ]
}

/// Checks that the runner works here.
fn works() -> Outcome {
    let output = Command::new(RUNNER).arg("probe").output().expect("the runner starts");
    if output.status.success() { Ok(()) } else { skip(stderr(&output).trim_end()) }
}

fn no_permission_is_said_with_what_to_do() -> Outcome {
    const NOBODY: u32 = 65534;
    match Command::new(RUNNER).arg("probe").uid(NOBODY).gid(NOBODY).output() {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return skip("cannot become another user"),
        output => {
            let output = output.expect("the runner starts");
            if output.status.success() {
                return skip("every user may use /dev/kvm here");
            }
            assert_eq!(output.status.code(), ABSENT);
            assert!(stderr(&output).starts_with("expected /dev/kvm to open for reading and writing, found: "));
        }
    }
    Ok(())
}

/// Runs under a limit of the shell; `limit` are the arguments of `ulimit`.
fn limited(limit: &str, command: &str) -> Output {
    let script = format!("ulimit {limit} && exec \"$0\" {command}");
    Command::new("sh").args(["-c", &script, RUNNER]).output().expect("a shell")
}

fn short_memory_and_few_files_are_errors_and_no_panics() -> Outcome {
    works()?;
    // Address space in KiB: enough to start, too little for the memory of a guest. Files: too few for four
    // vCPUs.
    for (limit, command) in [("-v 16000", "probe"), ("-n 8", "probe"), ("-n 8", "stress --seconds 1")] {
        let output = limited(limit, command);
        let said = stderr(&output);
        assert_eq!(output.status.code(), ABSENT, "ulimit {limit}: {said}");
        assert!(said.contains("cannot ") && !said.contains("panicked"), "ulimit {limit}: {said}");
    }
    assert!(works().is_ok(), "and nothing is left of it");
    Ok(())
}

/// Processes of this runner whose first argument is `argument`.
fn running(argument: &str) -> usize {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    let name = Path::new(RUNNER).to_string_lossy().into_owned();
    lines.filter(|line| line.starts_with(format!("{name}\0{argument}\0").as_bytes())).count()
}

fn a_runner_that_is_killed_leaves_nothing_behind() -> Outcome {
    works()?;
    let mut runner = Command::new(RUNNER);
    // A number that no other test uses distinguishes its children.
    let mut stressed = runner
        .args(["stress", "--seconds", "61", "--alias-method", "guest-ptes"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the runner starts");
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(stressed.try_wait().expect("a status"), None, "it still runs");
    stressed.kill().expect("to be killed");
    stressed.wait().expect("an end");
    // The child that a fork for reclaim has left ends with its parent.
    let mut patience = 100;
    while running("stress\0--seconds\x0061") > 0 && patience > 0 {
        std::thread::sleep(Duration::from_millis(20));
        patience -= 1;
    }
    assert_eq!(running("stress\0--seconds\x0061"), 0, "a child is left");
    assert!(works().is_ok(), "the next runner finds KVM in order");
    Ok(())
}

/// A library between the runner and the kernel. The ioctl `REFUSED` fails with `ERRNO`, or returns `RESULT`;
/// after `AFTER` calls only the next one does. `OPEN` is the errno with which `/dev/kvm` does not open.
const BETWEEN: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

int ioctl(int fd, unsigned long request, ...)
{
	static int (*kernel)(int, unsigned long, ...);
	static int calls;
	const char *refused = getenv("REFUSED"), *number = getenv("ERRNO"), *result = getenv("RESULT");
	const char *only = getenv("ARGUMENT"), *after = getenv("AFTER");
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
	if (after && calls++ != atoi(after))
		return kernel(fd, request, argument);
	if (result)
		return atoi(result);
	errno = atoi(number);
	return -1;
}

int open(const char *path, int flags, ...)
{
	static int (*kernel)(const char *, int, ...);
	va_list rest;
	int mode;

	va_start(rest, flags);
	mode = va_arg(rest, int);
	va_end(rest);
	if (!kernel)
		kernel = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
	if (!getenv("OPEN") || strcmp(path, "/dev/kvm"))
		return kernel(path, flags, mode);
	errno = atoi(getenv("OPEN"));
	return -1;
}
"#;

/// Runs the runner on a KVM that the settings modify, and returns its status and outputs.
fn run_with(
    folder: &Path,
    settings: &[(&str, &str)],
    arguments: &[&str],
) -> Result<(Option<i32>, String, String), Skipped> {
    let (source, library) = (folder.join("between.c"), folder.join("between.so"));
    if !library.exists() {
        std::fs::write(&source, BETWEEN).expect("a file");
        let compiled =
            Command::new("gcc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
        match compiled {
            Err(error) => return skip(format!("expected the command gcc, found: {error}")),
            Ok(status) => assert!(status.success(), "the library between the runner and the kernel does not compile"),
        }
    }
    let mut command = Command::new(RUNNER);
    command.args(arguments).env("LD_PRELOAD", &library).envs(settings.iter().copied());
    let output = command.output().expect("the runner starts");
    Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), stderr(&output)))
}

/// `KVM_RUN`, and `KVM_SET_USER_MEMORY_REGION`.
const RUN: &str = "ae80";
const SET_REGION: &str = "4020ae46";

fn a_kvm_that_is_busy_old_poor_or_broken_is_said_to_be() -> Outcome {
    works()?;
    let folder = tempfile::tempdir().expect("a folder");
    let (version, create_vm, check) = ("ae00", "ae01", "ae03");
    let errno = |number: i32| number.to_string();
    let (busy, exists, memory) = (errno(libc::EBUSY), errno(libc::EEXIST), errno(libc::ENOMEM));
    let (none, denied) = (errno(libc::ENOENT), errno(libc::EACCES));
    // KVM_CAP_READONLY_MEM is number 81.
    for (settings, expected) in [
        (vec![("OPEN", none.as_str())], "expected /dev/kvm to open for reading and writing, found: No such file"),
        (vec![("OPEN", &denied)], "expected /dev/kvm to open for reading and writing, found: Permission denied"),
        (vec![("REFUSED", version), ("RESULT", "11")], "expected a KVM with version 12 of its interface"),
        (
            vec![("REFUSED", create_vm), ("ERRNO", &busy)],
            "expected KVM to make a VM, found it busy: Device or resource busy",
        ),
        (vec![("REFUSED", create_vm), ("ERRNO", &exists)], "expected KVM to make a VM, found it busy: File exists"),
        (vec![("REFUSED", create_vm), ("ERRNO", &memory)], "cannot create a VM: Cannot allocate memory"),
        (vec![("REFUSED", check), ("ARGUMENT", "81"), ("RESULT", "0")], "expected a KVM with KVM_CAP_READONLY_MEM"),
        (vec![("REFUSED", RUN), ("ERRNO", &memory)], "cannot let a vCPU complete its exit: Cannot allocate memory"),
    ] {
        let (status, _, said) = run_with(folder.path(), &settings, &["probe"])?;
        assert_eq!(status, ABSENT, "{settings:?}: {said}");
        assert!(said.starts_with(expected) && said.lines().count() == 1, "{settings:?}: {said}");
    }
    Ok(())
}

/// One call fails while the first of two programs runs, for each such call. The error names that program, and
/// the other program still runs.
fn a_call_that_fails_once_costs_its_program_and_no_other() -> Outcome {
    works()?;
    let folder = tempfile::tempdir().expect("a folder");
    let text = "gpafuzz-program 1\nvm stolen=40 vcpus=1 base=0x1e0 flush=works\n\
                slot 0 create gfn=0x1e0 pages=2 hva=0x0\nv0 write 0x1e1@1\nunmap hva=0x1 pages=1\nv0 read 0x1e1\n";
    let paths = ["first.prog", "second.prog"].map(|name| folder.path().join(name));
    paths.iter().for_each(|path| std::fs::write(path, text).expect("a file"));
    let paths = paths.map(|path| path.to_string_lossy().into_owned());
    for (call, error, expected) in [
        (RUN, libc::EIO, "cannot run a vCPU: Input/output error"),
        (RUN, libc::ENOMEM, "cannot run a vCPU: Cannot allocate memory"),
        (SET_REGION, libc::ENOMEM, "cannot set a memslot: Cannot allocate memory"),
    ] {
        let number = error.to_string();
        let mut hit = false;
        for after in 0..60 {
            let after = after.to_string();
            let settings = [("REFUSED", call), ("ERRNO", number.as_str()), ("AFTER", &after)];
            let (status, found, said) = run_with(folder.path(), &settings, &["run", &paths[0], &paths[1]])?;
            assert!(!said.contains("panicked"), "call {after}: {said}");
            if said.starts_with(&format!("{}: {expected}", paths[0])) {
                assert_eq!((status, said.lines().count()), (ABSENT, 1), "call {after}: {said}");
                assert!(found.starts_with(&format!("{}: clean: 4 ops judged", paths[1])), "call {after}: {found}");
                hit = true;
                break;
            }
        }
        assert!(hit, "no call of {call} came while the first program ran");
    }
    assert!(works().is_ok(), "and nothing is left of it");
    Ok(())
}
