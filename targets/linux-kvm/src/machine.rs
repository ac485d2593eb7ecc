//! A machine that boots an image in an emulator, and the port and the console that connect us with it.

pub mod console;
pub(crate) mod snapshot;

use crate::emulator::coverage::Map;
use crate::emulator::monitor::Monitor;
use crate::emulator::{Emulator, Image, Started, bochs, complaints, console as console_of, qemu};
use crate::host::port::Port;
use crate::host::run_dir::RunDir;
use crate::host::supervise::Supervised;
use console::Console;
use kernels::error::at;
use kernels::{Error, Progress};
use snapshot::{Place, Snapshot, Unfinished, Words};
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// How often it is looked whether the machine still runs while it says nothing.
const LOOK: Duration = Duration::from_millis(500);
/// How much later than an answer a WARN may come out of the console.
const LATE: Duration = Duration::from_secs(2);
/// After how long a boot says how far it has come, and then again.
const PATIENCE: Duration = Duration::from_secs(30);
/// More than any answer is long.
const ANSWER_BYTES: usize = 8 << 20;
/// The question that changes nothing but whether a WARN_ONCE that has spoken can speak again.
pub(crate) const REARM: &str = "rearm";
/// What ends a message.
const END: u8 = 0;

/// A machine that runs.
#[derive(Debug)]
pub(crate) struct Machine {
    // Declared, and so dropped, before the folder it uses.
    process: Supervised,
    port: Port,
    emulator: Emulator,
    answer_limit: Duration,
    console: Console,
    map: Option<Map>,
    buffer: Vec<u8>,
    dir: RunDir,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// There was none in that time.
    Hang(Duration),
    /// The machine has ended, or closed its port.
    Died(String),
}

impl Machine {
    /// Switch a machine on and wait for its first message, which is returned, too.
    ///
    /// # Errors
    /// [`Error::Absent`] if there is no such emulator; [`Error::Failed`], with the end of the console's log, if it does not
    /// come up.
    pub(crate) fn boot(image: &Image, emulator: Emulator, progress: Progress<'_>) -> Result<(Self, String), Error> {
        let dir = RunDir::new()?;
        let mut machine = Self::start(emulator, dir, "", |dir| match emulator {
            Emulator::Qemu => qemu::start(image, dir, None),
            Emulator::Bochs => bochs::start(image, dir),
        })?;
        let limit = emulator.boot_limit();
        let start = Instant::now();
        let mut said = Duration::ZERO;
        let hello = machine.receive(limit, &mut |machine| {
            if start.elapsed() > said + PATIENCE {
                said = start.elapsed();
                let log = machine.log();
                let last = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing yet");
                progress(&format!("booting for {} s; the kernel's last words: {}", said.as_secs(), last.trim()));
            }
        });
        match hello {
            Ok(hello) => Ok((machine, hello)),
            Err(silence) => Err(machine.stillborn(&silence)),
        }
    }

    /// Go on with one that has come up before. Its first message, as it was then, is returned, too.
    ///
    /// # Errors
    /// If it does not answer.
    pub(crate) fn resume(image: &Image, snapshot: Snapshot) -> Result<(Self, String), Error> {
        let Snapshot { stream, words } = snapshot;
        let start = |dir: &RunDir| qemu::start(image, dir, Some(stream));
        let mut machine = Self::start(Emulator::Qemu, RunDir::new()?, &words.log, start)?;
        match machine.ask(REARM) {
            Ok(_) => Ok((machine, words.hello)),
            Err(silence) => Err(machine.stillborn(&silence)),
        }
    }

    /// Start an emulator. `log` is what the kernel has said before.
    fn start(
        emulator: Emulator,
        dir: RunDir,
        log: &str,
        start: impl FnOnce(&RunDir) -> Result<Started, Error>,
    ) -> Result<Self, Error> {
        let console = console_of(&dir);
        std::fs::write(&console, log).map_err(at(&console))?;
        let Started { process, port, map } = start(&dir)?;
        let console = Console::open(&console).map_err(at(&console))?;
        let answer_limit = emulator.patience()?;
        Ok(Self { process, port, emulator, answer_limit, console, map, buffer: Vec::new(), dir })
    }

    /// Keep its state at `place`, so that another can go on from here, as this one does.
    ///
    /// # Errors
    /// If it cannot be kept; this one may then [answer](Self::answers) or not.
    pub(crate) fn keep(&mut self, hello: &str, mut new: Unfinished, place: &Place) -> io::Result<()> {
        let mut monitor = Monitor::connect(&qemu::monitor(&self.dir))?;
        new.begin(&Words { hello: hello.to_owned(), log: self.log() })?;
        let written = monitor.write_state(&self.dir.path().join("state"), new.stream());
        monitor.go_on()?;
        written?;
        new.finish(place)
    }

    /// Whether the runner inside answers.
    pub(crate) fn answers(&mut self) -> bool {
        self.ask(REARM).is_ok()
    }

    /// Why it did not come up.
    fn stillborn(mut self, silence: &Silence) -> Error {
        let name = self.emulator.name();
        let why = match silence {
            Silence::Hang(limit) => format!("did not come up within {limit:?}"),
            Silence::Died(how) => format!("did not come up: {how}"),
        };
        let log = self.log();
        // A panic ends in a long trace; what led to it stands before.
        let lines: Vec<&str> = log.lines().take_while(|line| !line.contains("Call Trace:")).collect();
        let tail = lines[lines.len().saturating_sub(12)..].join("\n  ");
        let said = complaints(&self.dir);
        Error::Failed(format!("the kernel in {name} {why}; its last words:\n  {tail}\n{}", said.trim()))
    }

    /// Send a message and wait for the answer.
    pub(crate) fn ask(&mut self, question: &str) -> Result<String, Silence> {
        let limit = self.answer_limit;
        self.buffer.clear();
        self.buffer.extend_from_slice(question.as_bytes());
        self.buffer.push(END);
        let buffer = std::mem::take(&mut self.buffer);
        if let Some(map) = &self.map {
            map.begin();
        }
        let sent = self.port.write(&buffer, limit);
        self.buffer = buffer;
        if sent.is_err() {
            return Err(self.died());
        }
        self.receive(limit, &mut |_| {})
    }

    /// Wait for a message. `wait` is called now and then.
    fn receive(&mut self, limit: Duration, wait: &mut dyn FnMut(&mut Self)) -> Result<String, Silence> {
        let deadline = Instant::now() + limit;
        self.buffer.clear();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.buffer.len() > ANSWER_BYTES {
                return Err(Silence::Hang(limit));
            }
            let mut chunk = [0; 1 << 16];
            match self.port.read(&mut chunk, left.min(LOOK)) {
                Ok(Some(0)) | Err(_) => return Err(self.died()),
                Ok(Some(length)) => self.buffer.extend_from_slice(&chunk[..length]),
                Ok(None) if self.process.ended().is_some() => return Err(self.died()),
                Ok(None) => wait(self),
            }
            if self.buffer.last() == Some(&END) {
                self.buffer.pop();
                // A terminal may put one before each end of a line.
                self.buffer.retain(|&byte| byte != b'\r');
                return String::from_utf8(std::mem::take(&mut self.buffer))
                    .map_err(|_| Silence::Died("it sent something that is no text".to_owned()));
            }
        }
    }

    fn died(&mut self) -> Silence {
        // The port closes a moment before the process ends.
        for _ in 0..100 {
            if let Some(how) = self.process.ended() {
                return Silence::Died(format!("{} ended with {how}", self.emulator.name()));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Silence::Died("it closed its port".to_owned())
    }

    /// The addresses of the blocks of modules that were executed since the last question, if they are watched.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = u64> {
        self.map.iter().flat_map(Map::blocks)
    }

    /// What the kernel has said on its console since this was last asked.
    pub(crate) fn news(&mut self) -> String {
        self.console.news().unwrap_or_default()
    }

    /// The same; if the kernel has `warned`, which it says a moment later, that is waited for.
    pub(crate) fn news_after(&mut self, warned: u64) -> String {
        let mut news = self.news();
        let deadline = Instant::now() + LATE;
        while warned > 0 && !console::warns(&news) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
            news.push_str(&self.news());
        }
        news
    }

    /// All the kernel has said on its console.
    pub(crate) fn log(&mut self) -> String {
        self.console.log().unwrap_or_default()
    }
}
