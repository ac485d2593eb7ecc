//! A worker process: the files that lead to it, and how patient to be with it.

use crate::wire::{ANSWER_BYTES, Doorbell, LOG_BYTES};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How a worker is started.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// When a worker counts as hanging. A machine may be busy with other things, so what counts is the time of the processor that the
/// worker has had; only one that waits for something is measured by the clock.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Time of the processor for one program.
    pub processor: Duration,
    /// How long it may wait for what does not come.
    pub asleep: Duration,
}

impl Default for Patience {
    /// A thousand times what a program takes.
    fn default() -> Self {
        Self { processor: Duration::from_secs(3), asleep: Duration::from_secs(20) }
    }
}

/// Why no answer came.
#[derive(Debug)]
pub(crate) enum Silence {
    /// It used up the [`Patience`].
    Hangs,
    /// It is gone, or its end of the socket is.
    Gone,
}

/// A worker that runs. It is killed when this value goes; it asks the kernel itself to end with this process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pub(crate) socket: UnixStream,
    answer: File,
    log: File,
}

/// How often a silent worker is looked after.
const LOOK: Duration = Duration::from_millis(250);

impl Process {
    pub(crate) fn spawn(launch: &Launch) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(LOOK))?;
        let (answer, log) = (shared("kvm-ko-answer", ANSWER_BYTES)?, shared("kvm-ko-log", LOG_BYTES)?);
        let mut command = Command::new(&launch.program);
        command.args(&launch.arguments).process_group(0);
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::from(answer.try_clone()?)).stderr(log.try_clone()?);
        Ok(Self { child: command.spawn()?, socket: ours, answer, log })
    }

    /// Wait until it rings.
    pub(crate) fn wait(&mut self, patience: Patience) -> Result<Doorbell, Silence> {
        let (start, mut busy_at) = (processor_time(self.child.id()), Instant::now());
        let mut last = start;
        loop {
            match Doorbell::receive(&mut self.socket) {
                Ok(doorbell) => return Ok(doorbell),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(Silence::Gone),
            }
            let now = processor_time(self.child.id());
            if now.is_none_or(|now| now.runs) || now != last {
                (last, busy_at) = (now, Instant::now());
            }
            let used = now.zip(start).map_or(Duration::ZERO, |(now, start)| now.used.saturating_sub(start.used));
            if used > patience.processor || busy_at.elapsed() > patience.asleep {
                return Err(Silence::Hangs);
            }
        }
    }

    /// Fill `bytes` from the start of the answer.
    pub(crate) fn read_answer(&self, bytes: &mut Vec<u8>, length: usize) -> io::Result<()> {
        bytes.resize(length, 0);
        self.answer.read_exact_at(bytes, 0)
    }

    /// What it said: up to the first zero.
    pub(crate) fn log(&self) -> String {
        let mut bytes = vec![0; LOG_BYTES];
        let read = self.log.read_at(&mut bytes, 0).unwrap_or(0);
        let end = bytes[..read].iter().position(|byte| *byte == 0).unwrap_or(read);
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// End it, and say how it ended.
    pub(crate) fn end(&mut self) -> String {
        // It may have ended by itself; if not, nothing it does counts any more.
        let itself = self.child.try_wait().ok().flatten();
        let _ = self.child.kill();
        match itself.or_else(|| self.child.wait().ok()) {
            Some(status) => status.to_string(),
            None => "it cannot be said how".into(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// A file in memory of this size, and of no other: what a worker writes beyond it is refused.
fn shared(name: &str, bytes: usize) -> io::Result<File> {
    let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, bytes as u64)?;
    fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(File::from(file))
}

/// Time of the processor that process `id` has had, if it is there.
pub fn used_by(id: u32) -> Option<Duration> {
    processor_time(id).map(|time| time.used)
}

/// What a process has had of the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ProcessorTime {
    used: Duration,
    /// Whether it runs, or would if it had its turn.
    runs: bool,
}

/// That of process `id`; `None` if it is gone (proc(5), `/proc/pid/stat`).
fn processor_time(id: u32) -> Option<ProcessorTime> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // Behind the name, which may hold anything: the state is field 3, utime and stime are 14 and 15, in hundredths of a second.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let used = Duration::from_millis(10 * (ticks(11)? + ticks(12)?));
    Some(ProcessorTime { used, runs: fields.first() == Some(&"R") })
}
