//! QEMU: SVM with nested paging; the console goes to a file, and a virtio serial port is a socket.

use super::coverage::Map;
use super::{COMMAND_LINE, Image, MEMORY_MB, Started, absent, complaints, console, errors};
use crate::host::port::Port;
use crate::host::run_dir::RunDir;
use crate::host::supervise::Supervised;
use kernels::Error;
use kernels::command::output;
use kernels::error::at;
use std::fs::File;
use std::hash::Hash;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The emulator.
pub(crate) const QEMU: &str = "qemu-system-x86_64";
/// The Debian package that has it.
pub(crate) const PACKAGE: &str = "qemu-system-x86";
/// The machine that it plays. A kernel that is told of fast string instructions (ERMS) clears and copies pages by the byte, which takes a
/// software CPU eight times as long as by the word.
const HARDWARE: [&str; 4] = ["-machine", "q35,accel=tcg", "-cpu", "max,phys-bits=48,-erms"];
/// QEMU gives up what it needs not. A guest that breaks out of its kernel's mistakes into QEMU finds no new program to start there.
const SANDBOX: [&str; 2] = ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"];
/// How long it may take until QEMU, on a busy machine, comes to what it was told to do.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The socket of the monitor of the machine in `dir`.
pub(crate) fn monitor(dir: &RunDir) -> PathBuf {
    dir.path().join("monitor")
}

/// Start `image`, with all files of the machine in `dir`: from power-on, or from the `state` of one that has come up.
pub(crate) fn start(image: &Image, dir: &RunDir, state: Option<File>) -> Result<Started, Error> {
    let file = |name: &str| dir.path().join(name);
    let (port, initrd, errors) = (file("port"), file("initrd"), errors(dir));
    std::fs::write(&initrd, &image.initrd).map_err(at(&initrd))?;
    let listener = UnixListener::bind(&port).map_err(at(&port))?;
    listener.set_nonblocking(true).map_err(at(&port))?;
    let mut command = Command::new(QEMU);
    command.args(HARDWARE).args(["-m", MEMORY_MB, "-display", "none"]);
    command.args(SANDBOX).args(["-monitor", "none", "-nic", "none", "-no-reboot", "-nodefaults"]);
    command.arg("-chardev").arg(format!("socket,id=port,path={}", port.display()));
    command.args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=port"]);
    // What a kernel said before its state was written stays there.
    command.arg("-chardev").arg(format!("file,id=console,append=on,path={}", console(dir).display()));
    command.args(["-serial", "chardev:console"]);
    command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", monitor(dir).display()));
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
    if state.is_some() {
        command.args(["-incoming", "fd:0"]);
    }
    let stdin = state.map_or_else(Stdio::null, Stdio::from);
    command.stdin(stdin).stdout(Stdio::null()).stderr(stderr);
    let mut process = Supervised::spawn(&mut command).map_err(absent(QEMU, PACKAGE))?;
    let Some(stream) = accept(&listener, || process.ended().is_some()) else {
        return Err(Error::Failed(format!("{QEMU} does not start:\n{}", complaints(dir).trim())));
    };
    Ok(Started { process, port: Port::socket(stream).map_err(at(&port))?, map })
}

/// Wait for the one that connects to `listener`, which does not block, for as long as it is not `gone`.
pub(crate) fn accept(listener: &UnixListener, mut gone: impl FnMut() -> bool) -> Option<UnixStream> {
    let deadline = Instant::now() + START_LIMIT;
    while Instant::now() < deadline {
        match listener.accept() {
            Ok((stream, _)) => return Some(stream),
            Err(_) if gone() => return None,
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
    None
}

/// What this machine's QEMU is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// What it calls itself.
    pub name: String,
    /// The first number of its version.
    pub major: u32,
    /// Whether it takes plugins.
    pub plugins: bool,
}

impl Version {
    /// What, besides what is in an image, a machine's state hangs on.
    pub(crate) fn hardware(&self) -> impl Hash {
        (self.name.clone(), HARDWARE, MEMORY_MB, COMMAND_LINE)
    }
}

/// Ask this machine's QEMU what it is.
///
/// # Errors
/// [`Error::Absent`] if there is none.
pub(crate) fn version() -> Result<Version, Error> {
    let ask = |question| {
        let said = output(Command::new(QEMU).arg(question), PACKAGE)?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    };
    let name = ask("--version")?.lines().next().unwrap_or_default().to_owned();
    let number = name.split_whitespace().find_map(|word| word.split('.').next()?.parse().ok());
    Ok(Version { major: number.unwrap_or_default(), plugins: ask("--help")?.contains("-plugin "), name })
}
