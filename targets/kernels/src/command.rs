//! Commands of the system, run to their end: what they print, or why they failed.
#![expect(unsafe_code, reason = "a process can only ask to die with its parent between fork and exec")]

use crate::Error;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Run `command` and return what it prints. `need` is the Debian package that has it.
///
/// If this process is killed, the command is told to stop by SIGTERM: `make` and `apt-get` then stop those that work for them, too.
pub fn output(command: &mut Command, need: &str) -> Result<Vec<u8>, Error> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = end_with_us(command, libc::SIGTERM).output().map_err(|error| {
        Error::Absent(format!("expected the command `{name}`, found: {error}; install the package {need}"))
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said.lines().rev().filter(|line| !line.trim().is_empty()).take(8).collect();
    let last = last.into_iter().rev().collect::<Vec<_>>().join("\n  ");
    Err(Error::Failed(format!("`{line}` ended with {}:\n  {last}", output.status)))
}

/// Have `command`, once started, get `signal` when the thread that starts it ends, however it ends.
pub fn end_with_us(command: &mut Command, signal: libc::c_int) -> &mut Command {
    // SAFETY: prctl with these arguments is a system call without memory, which may stand between fork and exec.
    unsafe {
        command.pre_exec(move || match libc::prctl(libc::PR_SET_PDEATHSIG, signal) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        })
    }
}
