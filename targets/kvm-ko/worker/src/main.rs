//! The worker: loads a kernel's KVM into this process and carries programs out on it, for the supervisor that started it.
//!
//! `kvm-ko-worker PREPARED RELEASE VENDOR MMU ALIASES [MODULE.PARAMETER=VALUE … without-FUNCTION …]`, with the socket as standard input, the memory of answers
//! as standard output, and that of the kernel's log as standard error.
//!
//! UNSAFETY: takes over the files that the supervisor gave it, and maps one of them.

#![expect(
    unsafe_code,
    reason = "the memory of answers is mapped, and the standard files are not what they usually are"
)]

mod driver;

use driver::{Driver, Setup};
use kvm_ko::serve;
use kvm_ko::wire::ANSWER_BYTES;
use kvm_ko_worker::kernel::Kernel;
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    end_with_supervisor();
    let setup = Setup::of(std::env::args_os().skip(1))?;
    // Threads of the kernel refer to it for as long as the process lives.
    let kernel = Kernel::load(&setup.prepared, &setup.options()).map_err(|error| error.to_string())?;
    setup.without.iter().try_for_each(|function| kernel.leave_out(function)).map_err(|error| error.to_string())?;
    let kernel: &'static Kernel = Box::leak(Box::new(kernel));
    let hello = setup.hello();
    let memory = answer_memory()?;
    // SAFETY: standard input is the socket, and nothing else in this process uses it.
    let socket = unsafe { UnixStream::from(OwnedFd::from_raw_fd(libc::STDIN_FILENO)) };
    // SAFETY: it stays open, and others that write there write after it.
    let log = unsafe { ManuallyDrop::new(File::from_raw_fd(libc::STDERR_FILENO)) };
    serve::serve(socket, memory, &hello, &mut Driver::new(kernel, &setup, log)).map_err(|error| error.to_string())
}

/// A supervisor that is killed takes its workers with it.
fn end_with_supervisor() {
    // SAFETY: a system call without memory.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

fn answer_memory() -> Result<&'static mut [u8], String> {
    // SAFETY: a new mapping of a file that only the supervisor has, too, and which reads it when it is told to or this process is gone.
    unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let at = libc::mmap(std::ptr::null_mut(), ANSWER_BYTES, protection, libc::MAP_SHARED, libc::STDOUT_FILENO, 0);
        if at == libc::MAP_FAILED {
            return Err(format!("the memory of answers cannot be mapped: {}", std::io::Error::last_os_error()));
        }
        Ok(std::slice::from_raw_parts_mut(at.cast(), ANSWER_BYTES))
    }
}
