//! QEMU's monitor: has a machine's state written to a file.

use super::qemu::accept;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// How long QEMU may say nothing.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A connection that speaks QEMU's Machine Protocol (QMP): a line of JSON each way.
#[derive(Debug)]
pub(crate) struct Monitor(BufReader<UnixStream>);

impl Monitor {
    /// Connect to the monitor at `socket`.
    pub(crate) fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let mut monitor = Self(BufReader::new(stream));
        monitor.ask(r#"{"execute": "qmp_capabilities"}"#)?;
        Ok(monitor)
    }

    /// Have the machine stop, and all its state written to `file`, by way of a new `socket`.
    pub(crate) fn write_state(&mut self, socket: &Path, file: &mut File) -> io::Result<()> {
        let listener = UnixListener::bind(socket)?;
        listener.set_nonblocking(true)?;
        let uri = socket.display().to_string().replace('\\', r"\\").replace('"', "\\\"");
        self.ask(&format!(r#"{{"execute": "migrate", "arguments": {{"uri": "unix:{uri}"}}}}"#))?;
        let failed = || self.state().is_ok_and(|answer| answer.contains(r#""failed""#));
        let stream = accept(&listener, failed).ok_or(io::ErrorKind::NotConnected)?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        io::copy(&mut &stream, file)?;
        let state = self.state()?;
        if state.contains(r#""completed""#) { Ok(()) } else { Err(io::Error::other(state)) }
    }

    /// How far the writing of the state is.
    fn state(&mut self) -> io::Result<String> {
        self.ask(r#"{"execute": "query-migrate"}"#)
    }

    /// Have the machine go on.
    pub(crate) fn go_on(&mut self) -> io::Result<()> {
        self.ask(r#"{"execute": "cont"}"#).map(drop)
    }

    /// Give a command and wait for what it returns; what QEMU says unasked is passed over.
    fn ask(&mut self, command: &str) -> io::Result<String> {
        self.0.get_mut().write_all(format!("{command}\n").as_bytes())?;
        let mut line = String::new();
        loop {
            line.clear();
            if self.0.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.starts_with(r#"{"return""#) {
                return Ok(line);
            }
            if line.starts_with(r#"{"error""#) {
                return Err(io::Error::other(line.trim().to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};
    use std::thread;

    #[test]
    fn the_state_arrives_events_are_passed_over_and_errors_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, state) = (dir.path().join("monitor"), dir.path().join("a \"state\""));
        let listener = UnixListener::bind(&socket).unwrap();
        let to = state.clone();
        let qemu = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut commands = BufReader::new(stream.try_clone().unwrap()).lines();
            let mut answer = |answer: &str| {
                stream.write_all(format!("{answer}\n").as_bytes()).unwrap();
                commands.next().unwrap().unwrap()
            };
            answer("{\"QMP\": {}}");
            let migrate = answer("{\"return\": {}}");
            assert!(migrate.contains(r#"a \"state\""#), "{migrate}");
            UnixStream::connect(to).unwrap().write_all(b"all of it").unwrap();
            answer("{\"return\": {}}");
            answer("{\"event\": \"STOP\"}\n{\"return\": {\"status\": \"completed\", \"ram\": {}}}");
            stream.write_all(b"{\"error\": {\"class\": \"GenericError\"}}\n").unwrap();
        });
        let mut monitor = Monitor::connect(&socket).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        monitor.write_state(&state, &mut file).unwrap();
        let mut written = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut written).unwrap();
        assert_eq!(written, "all of it");
        assert!(monitor.go_on().unwrap_err().to_string().contains("GenericError"));
        qemu.join().unwrap();
        assert!(monitor.go_on().is_err(), "it has gone");
    }
}
