//! QEMU: a machine that boots an image, and the serial port and the console that connect us with it.

use crate::console::Console;
use crate::coverage::Map;
use crate::error::{LabError, at, output};
use crate::run_dir::RunDir;
use crate::supervise::Supervised;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The emulator.
pub const QEMU: &str = "qemu-system-x86_64";
/// The Debian package that has it.
pub const PACKAGE: &str = "qemu-system-x86";
/// What the kernel is told: say what matters, on the serial line, and stop at a panic.
///
/// Without `no_timer_check` a kernel that gets too little of a busy machine's time takes its timer for broken, and panics.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=5 panic=-1 no_timer_check";
/// With 512 MB or less Linux makes no huge pages of its own accord, and KVM then maps none.
const MEMORY_MB: &str = "640";
/// How long a boot may take; it takes 10 s.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// How long an answer may take; it takes milliseconds, and the runner inside gives up a guest after 5 s.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// More than any answer is long.
const ANSWER_BYTES: usize = 8 << 20;
/// What ends a message.
const END: u8 = 0;

/// What to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its first file system.
    pub initrd: Vec<u8>,
    /// The end of its command line.
    pub words: String,
    /// The plugin that watches which blocks are executed, a shared library.
    pub plugin: Option<Vec<u8>>,
}

/// A machine that runs.
#[derive(Debug)]
pub struct Machine {
    // Declared, and so dropped, before the folder it uses.
    process: Supervised,
    port: UnixStream,
    console: Console,
    map: Option<Map>,
    buffer: Vec<u8>,
    _dir: RunDir,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// There was none in time.
    Hang,
    /// The machine has ended, or closed its port.
    Died(String),
}

impl Machine {
    /// Switch a machine on and wait for its first message, which is returned, too.
    ///
    /// # Errors
    /// [`LabError::Absent`] if there is no QEMU; [`LabError::Failed`], with the end of the console's log, if it does not come up.
    pub fn boot(image: &Image) -> Result<(Self, String), LabError> {
        let dir = RunDir::new()?;
        let file = |name: &str| dir.path().join(name);
        let (port, initrd, console, errors) = (file("port"), file("initrd"), file("console"), file("errors"));
        std::fs::write(&initrd, &image.initrd).map_err(at(&initrd))?;
        File::create(&console).map_err(at(&console))?;
        let listener = UnixListener::bind(&port).map_err(at(&port))?;
        listener.set_nonblocking(true).map_err(at(&port))?;
        let mut command = Command::new(QEMU);
        command.args(["-machine", "q35,accel=tcg", "-cpu", "max,phys-bits=48", "-m", MEMORY_MB, "-display", "none"]);
        command.args(["-monitor", "none", "-nic", "none", "-no-reboot", "-nodefaults"]);
        command.arg("-serial").arg(format!("file:{}", console.display()));
        command.arg("-chardev").arg(format!("socket,id=port,path={}", port.display()));
        command.args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=port"]);
        command.arg("-kernel").arg(&image.kernel).arg("-initrd").arg(&initrd);
        command.arg("-append").arg(format!("{COMMAND_LINE} {}", image.words));
        let mut map = None;
        if let Some(plugin) = &image.plugin {
            let (library, path) = (file("plugin.so"), file("map"));
            std::fs::write(&library, plugin).map_err(at(&library))?;
            map = Some(Map::create(&path).map_err(at(&path))?);
            command.arg("-plugin").arg(format!("{},map={}", library.display(), path.display()));
        }
        let stderr = File::create(&errors).map_err(at(&errors))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let mut process = Supervised::spawn(&mut command).map_err(|error| {
            LabError::Absent(format!("expected the command `{QEMU}`, found: {error}; install the package {PACKAGE}"))
        })?;
        let deadline = Instant::now() + BOOT_LIMIT;
        let Some(stream) = accept(&listener, &mut process, deadline) else {
            let said = std::fs::read_to_string(&errors).unwrap_or_default();
            return Err(LabError::Failed(format!("{QEMU} does not start:\n{}", said.trim())));
        };
        stream.set_nonblocking(false).map_err(at(&port))?;
        let console = Console::open(&console).map_err(at(&console))?;
        let mut machine = Self { process, port: stream, console, map, buffer: Vec::new(), _dir: dir };
        match machine.receive(BOOT_LIMIT) {
            Ok(hello) => Ok((machine, hello)),
            Err(silence) => {
                let said = std::fs::read_to_string(&errors).unwrap_or_default();
                let why = match silence {
                    Silence::Hang => format!("did not come up within {BOOT_LIMIT:?}"),
                    Silence::Died(how) => format!("did not come up: {how}"),
                };
                let log = machine.log();
                // A panic ends in a long trace; what led to it stands before.
                let lines: Vec<&str> = log.lines().take_while(|line| !line.contains("Call Trace:")).collect();
                let tail = lines[lines.len().saturating_sub(12)..].join("\n  ");
                Err(LabError::Failed(format!("the kernel in QEMU {why}; its last words:\n  {tail}\n{}", said.trim())))
            }
        }
    }

    /// Send a message and wait for the answer.
    pub(crate) fn ask(&mut self, question: &str) -> Result<String, Silence> {
        self.buffer.clear();
        self.buffer.extend_from_slice(question.as_bytes());
        self.buffer.push(END);
        let buffer = std::mem::take(&mut self.buffer);
        if let Some(map) = &self.map {
            map.begin();
        }
        let sent = self.port.write_all(&buffer);
        self.buffer = buffer;
        if sent.is_err() {
            return Err(self.died());
        }
        self.receive(ANSWER_LIMIT)
    }

    fn receive(&mut self, limit: Duration) -> Result<String, Silence> {
        let deadline = Instant::now() + limit;
        self.buffer.clear();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.buffer.len() > ANSWER_BYTES {
                return Err(Silence::Hang);
            }
            let mut chunk = [0; 1 << 16];
            // A timeout that is not zero cannot be refused.
            let _ = self.port.set_read_timeout(Some(left));
            match self.port.read(&mut chunk) {
                Ok(0) => return Err(self.died()),
                Ok(length) => self.buffer.extend_from_slice(&chunk[..length]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
                }
                Err(_) => return Err(self.died()),
            }
            if self.buffer.last() == Some(&END) {
                self.buffer.pop();
                return String::from_utf8(std::mem::take(&mut self.buffer))
                    .map_err(|_| Silence::Died("it sent something that is no text".to_owned()));
            }
        }
    }

    fn died(&mut self) -> Silence {
        // The port closes a moment before the process ends.
        for _ in 0..100 {
            if let Some(how) = self.process.ended() {
                return Silence::Died(format!("QEMU ended with {how}"));
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

    /// All the kernel has said on its console.
    pub fn log(&mut self) -> String {
        self.console.log().unwrap_or_default()
    }
}

fn accept(listener: &UnixListener, process: &mut Supervised, deadline: Instant) -> Option<UnixStream> {
    while Instant::now() < deadline {
        match listener.accept() {
            Ok((stream, _)) => return Some(stream),
            Err(_) if process.ended().is_some() => return None,
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
    None
}

/// What this machine's QEMU is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// What it calls itself.
    pub name: String,
    /// The first number of its version.
    pub major: u32,
    /// Whether it takes plugins.
    pub plugins: bool,
}

/// Ask this machine's QEMU what it is.
///
/// # Errors
/// [`LabError::Absent`] if there is none.
pub fn version() -> Result<Version, LabError> {
    let ask = |question| {
        let said = output(Command::new(QEMU).arg(question), PACKAGE)?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    };
    let name = ask("--version")?.lines().next().unwrap_or_default().to_owned();
    let number = name.split_whitespace().find_map(|word| word.split('.').next()?.parse().ok());
    Ok(Version { major: number.unwrap_or_default(), plugins: ask("--help")?.contains("-plugin "), name })
}
