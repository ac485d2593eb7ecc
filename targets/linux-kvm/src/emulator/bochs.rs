//! Bochs: VMX with EPT. It boots from a disc only, so the kernel goes onto one; the console is the first serial line, which goes
//! to a file, and the second serial line is a pseudo-terminal.

use super::{COMMAND_LINE, Image, MEMORY_MB, Started, absent, console, errors};
use crate::host::port::{self, Port};
use crate::host::run_dir::RunDir;
use crate::host::supervise::Supervised;
use kernels::Error;
use kernels::command::output;
use kernels::error::at;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

/// The emulator itself; the command `bochs` only starts it.
const BOCHS: &str = "bochs-bin";
/// The Debian package that has it.
const PACKAGE: &str = "bochs";
/// What else is needed, and the package that has it.
const FIRMWARE: [(&str, &str); 3] = [
    ("/usr/share/bochs/BIOS-bochs-latest", "bochsbios"),
    ("/usr/share/vgabios/vgabios.bin", "vgabios"),
    ("/usr/lib/x86_64-linux-gnu/bochs/plugins/libbx_term_gui.so", "bochs-term"),
];
/// Makes a disc that a PC boots from.
const DISC_MAKER: &str = "grub-mkrescue";
/// What it needs, beside itself.
const DISC_PACKAGES: &str = "grub-common, and grub-pc-bin, xorriso and mtools with it";

/// Whether this machine has all that is needed.
///
/// # Errors
/// [`Error::Absent`] if it has not.
pub(crate) fn check() -> Result<(), Error> {
    output(Command::new(DISC_MAKER).arg("--version"), DISC_PACKAGES)?;
    Command::new(BOCHS).arg("--help").output().map_err(absent(BOCHS, PACKAGE))?;
    match FIRMWARE.iter().find(|(file, _)| !Path::new(file).exists()) {
        None => Ok(()),
        Some((file, package)) => {
            Err(Error::Absent(format!("expected the file {file}, found none; install the package {package}")))
        }
    }
}

/// Start `image`, with all files of the machine in `dir`.
pub(crate) fn start(image: &Image, dir: &RunDir) -> Result<Started, Error> {
    let file = |name: &str| dir.path().join(name);
    let (disc, setup, script) = (file("disc"), file("bochsrc"), file("script"));
    make_disc(image, &file("files"), &disc)?;
    let (port, line) = Port::terminal().map_err(at(Path::new("/dev/ptmx")))?;
    fs::write(&setup, configuration(&disc, &console(dir), &line, &errors(dir))).map_err(at(&setup))?;
    // Debian's Bochs has a debugger, which waits for the word to go on.
    fs::write(&script, "c\n").map_err(at(&script))?;
    let mut command = Command::new(BOCHS);
    command.arg("-q").arg("-f").arg(&setup).arg("-rc").arg(&script).env("TERM", "vt100");
    let process = with_display(&mut command)?;
    Ok(Started { process, port, map: None })
}

fn configuration(disc: &Path, console: &Path, port: &Path, log: &Path) -> String {
    let [(bios, _), (vgabios, _), _] = FIRMWARE;
    let (disc, console, port, log) = (disc.display(), console.display(), port.display(), log.display());
    format!(
        "config_interface: textconfig\n\
         display_library: term\n\
         memory: guest={MEMORY_MB}, host={MEMORY_MB}\n\
         romimage: file={bios}\n\
         vgaromimage: file={vgabios}\n\
         cpu: model=corei7_skylake_x, count=1, ips=200000000, reset_on_triple_fault=0\n\
         clock: sync=none\n\
         ata0-master: type=cdrom, path={disc}, status=inserted\n\
         boot: cdrom\n\
         com1: enabled=1, mode=file, dev={console}\n\
         com2: enabled=1, mode=term, dev={port}\n\
         speaker: enabled=0\n\
         log: {log}\n\
         info: action=ignore\n\
         error: action=ignore\n\
         panic: action=fatal\n"
    )
}

/// Bochs wants a terminal for its screen. What goes there is read, or Bochs would stop, and thrown away.
fn with_display(command: &mut Command) -> Result<Supervised, Error> {
    let failed = |error: io::Error| Error::Failed(format!("cannot make a terminal: {error}"));
    let (mut screen, path) = port::pseudo_terminal(0).map_err(failed)?;
    let end = || port::open(&path, 0).map(Stdio::from).map_err(failed);
    command.stdin(end()?).stdout(end()?).stderr(end()?);
    let process = Supervised::spawn(command).map_err(absent(BOCHS, PACKAGE))?;
    // Ends when the last who writes there has gone.
    thread::spawn(move || io::copy(&mut screen, &mut io::sink()));
    // So that this process is none of them.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(process)
}

/// Put the kernel, its first file system and a boot loader into the file `disc`, by way of the folder `files`.
fn make_disc(image: &Image, files: &Path, disc: &Path) -> Result<(), Error> {
    let grub = files.join("boot/grub");
    let (kernel, initrd, menu) = (files.join("kernel"), files.join("initrd"), grub.join("grub.cfg"));
    fs::create_dir_all(&grub).map_err(at(&grub))?;
    fs::copy(&image.kernel, &kernel).map_err(at(&kernel))?;
    fs::write(&initrd, &image.initrd).map_err(at(&initrd))?;
    let words = &image.words;
    let entry = format!("linux /kernel {COMMAND_LINE} {words}\ninitrd /initrd\nboot\n");
    fs::write(&menu, entry).map_err(at(&menu))?;
    output(Command::new(DISC_MAKER).arg("-o").arg(disc).arg(files), DISC_PACKAGES)?;
    fs::remove_dir_all(files).map_err(at(files))
}
