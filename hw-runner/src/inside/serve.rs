//! The runner as the first process of a lab's machine: it carries out programs that arrive over a serial port.
//!
//! Messages are text and end in a NUL. The machine sends the first:
//!
//! ```text
//! ready
//! drivers dontneed mremap fork
//! module kvm 0xffffffffc03e5000 1400832
//! module kvm_amd 0xffffffffc0561000 225280
//! ```
//!
//! It lists the ways to reclaim pages ([`Reclaim`](gpa_model::Reclaim)), and the address and size of each KVM module. If the
//! alias method does not work there, it is `lacking ` and the reason instead, and the machine powers off. Then it answers
//! requests:
//!
//! | request | answer |
//! |---|---|
//! | a program ([`gpa_model::text`]) | its trace ([`crate::trace`]), or `hung ` or `error ` and a message; before it a line `warned N` if the kernel warned `N` times meanwhile |
//! | `symbols` | a line `ADDRESS NAME` for each function of those modules, ascending |
//! | `stress N` | the result of `N` seconds of stress ([`crate::machine`]), or `error ` and a message |
//! | `rearm` | `done`; each `WARN_ONCE` that has fired can fire again |
//!
//! When the port is closed, the machine powers off.

use super::init;
use super::stolen::Machines;
use crate::{AliasMethod, MachineError, Trace, trace};
use gpa_model::limits::FILE_BYTES;
use gpa_model::{ReclaimSet, text};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How long the port may take to appear.
const PORT_LIMIT: Duration = Duration::from_secs(20);
/// The end of a message.
const END: u8 = 0;
/// How often the kernel has warned since it booted, and before Linux 6.2 whether it has (bit 9).
const WARNINGS: [(&str, u64); 2] = [("/sys/kernel/warn_count", u64::MAX), ("/proc/sys/kernel/tainted", 1 << 9)];
/// The kernel's symbols; those of modules carry the module's name.
const KALLSYMS: &str = "/proc/kallsyms";

/// Loads `modules`, each `FILE` or `FILE:PARAMETER,…`, and serves `port` until it is closed.
///
/// # Errors
/// If the machine cannot be set up, or the port fails. The machine powers off when its first process ends.
pub(crate) fn run(port: &Path, alias_method: AliasMethod, modules: &[String]) -> io::Result<()> {
    init::mount_kernel_file_systems()?;
    for module in modules {
        let (file, parameters) = module.split_once(':').unwrap_or((module, ""));
        init::load_module(Path::new(file), &parameters.replace(',', " "))
            .map_err(|error| io::Error::other(format!("cannot load the module {module}: {error}")))?;
    }
    let mut machines = Machines::new(alias_method);
    let port = open_port(port)?;
    machines.check_mask().map_err(io::Error::other)?;
    let opened = machines.open_plain().and_then(|()| machines.plain());
    match opened.map(|machine| machine.reclaims().available()) {
        Ok(reclaims) => serve(&mut machines, reclaims, &port)?,
        Err(error) if error.is_absence() => send(&port, format!("lacking {error}"))?,
        Err(error) => return Err(io::Error::other(error)),
    }
    Err(init::power_off())
}

fn open_port(path: &Path) -> io::Result<File> {
    let start = Instant::now();
    loop {
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(port) => return init::make_raw(&port).map(|()| port),
            Err(error) if start.elapsed() > PORT_LIMIT => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn serve(machines: &mut Machines, reclaims: ReclaimSet, port: &File) -> io::Result<()> {
    let mut questions = BufReader::new(port);
    send(port, hello(reclaims)?)?;
    let (mut question, mut trace) = (Vec::new(), Trace::default());
    loop {
        question.clear();
        (&mut questions).take(FILE_BYTES as u64).read_until(END, &mut question)?;
        if question.pop() != Some(END) {
            // The port is closed, or the message is longer than any program.
            return Ok(());
        }
        let answer = match question.as_slice() {
            b"symbols" => symbols()?,
            b"rearm" => rearm()?,
            question if question.starts_with(STRESS) => {
                stress(machines, &question[STRESS.len()..]).unwrap_or_else(|why| why)
            }
            program => {
                let before = warnings();
                let answer = carry_out(machines, program, &mut trace).unwrap_or_else(|why| why);
                match warnings().saturating_sub(before) {
                    0 => answer,
                    warned => format!("warned {warned}\n{answer}"),
                }
            }
        };
        send(port, answer)?;
    }
}

fn send(mut port: &File, mut message: String) -> io::Result<()> {
    message.push(char::from(END));
    port.write_all(message.as_bytes())
}

fn carry_out(machines: &mut Machines, program: &[u8], trace: &mut Trace) -> Result<String, String> {
    let source = std::str::from_utf8(program).map_err(|error| wrong(&error))?;
    let program = text::parse(source).map_err(|error| wrong(&error))?;
    let machine = machines.of(&program.vm).map_err(|error| wrong(&error))?;
    machine.run_into(&program, trace).map_err(|error| match error {
        MachineError::Hung(_) => format!("hung {error}"),
        error => wrong(&error),
    })?;
    Ok(trace::print(trace))
}

/// How often the kernel has warned so far.
fn warnings() -> u64 {
    let read = |(file, mask): (&str, u64)| {
        let text = fs::read_to_string(file).ok()?;
        let text = text.trim();
        let number = text.strip_prefix("0x").map_or_else(|| text.parse(), |digits| u64::from_str_radix(digits, 16));
        number.ok().map(|number: u64| number & mask)
    };
    WARNINGS.into_iter().find_map(read).unwrap_or(0)
}

/// The prefix of a stress request; the number of seconds follows.
const STRESS: &[u8] = b"stress ";
/// The number of vCPUs for stress.
const STRESSED: usize = 2;

fn stress(machines: &mut Machines, seconds: &[u8]) -> Result<String, String> {
    let seconds = std::str::from_utf8(seconds).ok().and_then(|seconds| seconds.parse().ok());
    let seconds = seconds.ok_or("error expected a number of seconds")?;
    let machine = machines.plain().map_err(|error| wrong(&error))?;
    let summary = machine.stress_summary(STRESSED, Duration::from_secs(seconds)).map_err(|error| wrong(&error))?;
    Ok(summary.text)
}

fn wrong(error: &dyn std::error::Error) -> String {
    format!("error {error}")
}

/// The first message.
fn hello(reclaims: ReclaimSet) -> io::Result<String> {
    let mut hello = "ready\ndrivers".to_owned();
    reclaims.iter().for_each(|reclaim| hello.push_str(&format!(" {}", reclaim.name())));
    hello.push('\n');
    for line in fs::read_to_string("/proc/modules")?.lines() {
        // NAME BYTES USERS DEPENDENCIES STATE ADDRESS
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [name, bytes, _, _, _, address, ..] = words[..]
            && (name == "kvm" || name.starts_with("kvm_"))
        {
            let _ = writeln!(hello, "module {name} {address} {bytes}");
        }
    }
    Ok(hello)
}

/// The functions of KVM's modules, as the kernel names them.
fn symbols() -> io::Result<String> {
    let mut symbols = Vec::new();
    for line in BufReader::new(File::open(KALLSYMS)?).lines() {
        let line = line?;
        // ADDRESS KIND NAME [MODULE]
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [address, "t" | "T", name, module] = words[..]
            && module.starts_with("[kvm")
        {
            symbols.push(format!("{address} {name}\n"));
        }
    }
    symbols.sort();
    Ok(symbols.concat())
}

fn rearm() -> io::Result<String> {
    fs::write("/sys/kernel/debug/clear_warn_once", "1")?;
    Ok("done".to_owned())
}
