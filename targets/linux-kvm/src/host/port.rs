//! The port between us and a machine: a socket, or a pseudo-terminal whose other end is the machine's serial line.
#![expect(unsafe_code, reason = "poll and the ioctls of pseudo-terminals have no safe wrapper")]

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Where pseudo-terminals come from.
const PTMX: &str = "/dev/ptmx";

/// Our end of the port.
#[derive(Debug)]
pub(crate) struct Port {
    file: File,
    /// The other end of a pseudo-terminal. While it is open, reading from our end is no error.
    _other: Option<File>,
}

impl Port {
    /// A connected socket.
    pub(crate) fn socket(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { file: OwnedFd::from(stream).into(), _other: None })
    }

    /// A new pseudo-terminal, and the path of its other end.
    pub(crate) fn terminal() -> io::Result<(Self, PathBuf)> {
        let (ours, path) = pseudo_terminal(libc::O_NONBLOCK)?;
        let other = open(&path, 0)?;
        Ok((Self { file: ours, _other: Some(other) }, path))
    }

    /// What has arrived, at most as much as `buffer` holds; nothing at all if the machine closed the port. `None` if nothing
    /// arrives within `limit`.
    pub(crate) fn read(&mut self, buffer: &mut [u8], limit: Duration) -> io::Result<Option<usize>> {
        if !ready(&self.file, libc::POLLIN, limit)? {
            return Ok(None);
        }
        match self.file.read(buffer) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            result => result.map(Some),
        }
    }

    /// Send `bytes` within `limit`.
    pub(crate) fn write(&mut self, mut bytes: &[u8], limit: Duration) -> io::Result<()> {
        let deadline = Instant::now() + limit;
        while !bytes.is_empty() {
            if !ready(&self.file, libc::POLLOUT, deadline.saturating_duration_since(Instant::now()))? {
                return Err(ErrorKind::TimedOut.into());
            }
            match self.file.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(length) => bytes = &bytes[length..],
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A new pseudo-terminal: our end, opened with `flags`, and the path of the other.
pub(crate) fn pseudo_terminal(flags: libc::c_int) -> io::Result<(File, PathBuf)> {
    let ours = open(&PathBuf::from(PTMX), flags)?;
    let (unlocked, mut number): (libc::c_int, libc::c_uint) = (0, 0);
    // SAFETY: both calls read or write one integer, which outlives them.
    let results = unsafe {
        [
            libc::ioctl(ours.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked),
            libc::ioctl(ours.as_raw_fd(), libc::TIOCGPTN, &raw mut number),
        ]
    };
    if results != [0, 0] {
        return Err(io::Error::last_os_error());
    }
    Ok((ours, format!("/dev/pts/{number}").into()))
}

/// Open a terminal, which does not become that of this process.
pub(crate) fn open(path: &PathBuf, flags: libc::c_int) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(flags | libc::O_NOCTTY).open(path)
}

/// Wait until `file` has, or takes, bytes, or has come to its end; `false` if that takes longer than `limit`.
fn ready(file: &File, events: libc::c_short, limit: Duration) -> io::Result<bool> {
    let mut wanted = libc::pollfd { fd: file.as_raw_fd(), events, revents: 0 };
    let limit = libc::c_int::try_from(limit.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: one structure, which outlives the call.
    match unsafe { libc::poll(&raw mut wanted, 1, limit) } {
        -1 => match io::Error::last_os_error() {
            error if error.kind() == ErrorKind::Interrupted => Ok(false),
            error => Err(error),
        },
        count => Ok(count > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LATE: Duration = Duration::from_secs(10);

    #[test]
    fn a_terminal_carries_both_ways_and_has_no_end_of_its_own() {
        let (mut port, path) = Port::terminal().unwrap();
        let mut buffer = [0; 16];
        assert_eq!(port.read(&mut buffer, SOON).unwrap(), None);
        let mut machine = open(&path, 0).unwrap();
        machine.write_all(b"ready\0").unwrap();
        assert_eq!(port.read(&mut buffer, LATE).unwrap(), Some(6));
        port.write(b"question\n", LATE).unwrap();
        assert_eq!(machine.read(&mut buffer).unwrap(), 9);
        drop(machine);
        // What the terminal echoed, and then nothing.
        while port.read(&mut buffer, SOON).unwrap().is_some() {}
    }

    #[test]
    fn a_socket_that_is_closed_says_so() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut port = Port::socket(ours).unwrap();
        assert_eq!(port.read(&mut [0; 16], SOON).unwrap(), None);
        drop(theirs);
        assert_eq!(port.read(&mut [0; 16], LATE).unwrap(), Some(0));
    }

    #[test]
    fn a_machine_that_reads_nothing_is_given_up() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut port = Port::socket(ours).unwrap();
        assert_eq!(port.write(&vec![0; 1 << 24], SOON).unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
