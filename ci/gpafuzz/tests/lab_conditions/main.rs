//! A lab in bad conditions: what is said, which exit status, and that nothing is left behind.
//!
//! QEMU, cargo and what fetches and builds a kernel are stand-ins in a `PATH` of our own: this test's own binary, started as QEMU would be,
//! speaks for the runner inside, so no machine is booted and nothing is built.

mod place;
mod preparing;
mod running;

use gpa_model::{Exit, OpKind, text};
use hw_runner::{Trace, trace};
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

/// What the stand-in is started with, and how it behaves.
const ARGUMENTS: &str = "FAKE_QEMU_ARGUMENTS";
const BEHAVIOUR: &str = "FAKE_QEMU";

/// Questions that it answers before it does what it is there for: the first is about what machine it is.
const ANSWERS: usize = 5;

/// What the kernel says that warns.
const WARNING: &str = "WARNING: CPU: 0 PID: 1 at arch/x86/kvm/example.c:1 kvm_example+0x1/0x2 [kvm]";
/// What the runner inside says of a guest that it has given up.
const HUNG: &str = "hung expected the guest to exit within 5s, found it still running; it was stopped";

/// Not a test: what runs in place of QEMU.
#[test]
#[ignore = "stands in for QEMU, and needs to be started as QEMU is"]
fn stand_in_for_qemu() {
    let (Ok(arguments), Ok(behaviour)) = (std::env::var(ARGUMENTS), std::env::var(BEHAVIOUR)) else { return };
    let path = arguments.split([' ', ',']).filter_map(|word| word.strip_prefix("path=")).next().expect("a port");
    if behaviour == "refuses" {
        eprintln!("stand-in: there is no such CPU");
        std::process::exit(1);
    }
    let mut port = UnixStream::connect(path).expect("the port");
    if behaviour == "boots for ever" {
        loop {
            thread::park();
        }
    }
    let resumed = arguments.contains("-incoming");
    if behaviour.starts_with("keeps") {
        let monitor = arguments.split([' ', ',']).filter_map(|word| word.strip_prefix("unix:")).next();
        let monitor = UnixListener::bind(monitor.expect("a monitor")).expect("a monitor");
        thread::spawn(move || stand_in_for_the_monitor(&monitor));
    }
    if resumed && behaviour == "keeps in vain" {
        std::process::exit(1);
    }
    if !resumed {
        port.write_all(b"ready\ndrivers\n\0").expect("somebody listens");
    }
    let mut warned = false;
    let mut questions = BufReader::new(UnixStream::try_clone(&port).expect("the port"));
    for asked in 1.. {
        let mut question = Vec::new();
        questions.read_until(0, &mut question).expect("a question");
        if question.pop().is_none() {
            return;
        }
        if question == b"rearm" {
            port.write_all(b"done\0").expect("somebody listens");
            continue;
        }
        let program = text::parse(std::str::from_utf8(&question).expect("text")).expect("a program");
        let deletes = program.ops.iter().any(|op| op.kind() == OpKind::SlotDelete);
        let observations = vec![Some(Exit::Unsupported); program.ops.len()];
        let answer = trace::print(&Trace { program, observations, samples: 1, ..Trace::default() });
        match behaviour.as_str() {
            "dies" if asked > ANSWERS => {
                port.write_all(&answer.as_bytes()[..answer.len() / 2]).expect("somebody listens");
                std::process::exit(1);
            }
            "truncates" if asked > ANSWERS => {
                port.write_all(&answer.as_bytes()[..answer.len() / 2]).expect("somebody listens");
                port.write_all(b"\0").expect("somebody listens");
            }
            "dies over deletions" if deletes => std::process::exit(1),
            "hangs" if asked > ANSWERS => loop {
                thread::park();
            },
            "has a guest that hangs" if asked > ANSWERS => {
                port.write_all(format!("{HUNG}\0").as_bytes()).expect("somebody listens");
            }
            _ => {
                if behaviour == "warns once" && asked > ANSWERS && !warned {
                    warned = true;
                    let console = arguments.split([' ', ',']).filter_map(|word| word.strip_prefix("path=")).nth(1);
                    let console = OpenOptions::new().append(true).open(console.expect("a console"));
                    writeln!(console.expect("a console"), "{WARNING}").expect("a console");
                }
                port.write_all(format!("{answer}\0").as_bytes()).expect("somebody listens");
            }
        }
    }
}

/// What writes the state of the machine that there is none of.
fn stand_in_for_the_monitor(listener: &UnixListener) {
    let (mut monitor, _) = listener.accept().expect("a connection");
    let commands = BufReader::new(monitor.try_clone().expect("the monitor"));
    for command in commands.lines().map_while(Result::ok) {
        if let Some((_, uri)) = command.split_once("unix:") {
            let to = uri.split('"').next().expect("a path");
            UnixStream::connect(to).expect("a listener").write_all(b"state").expect("somebody listens");
        }
        monitor.write_all(b"{\"return\": {\"status\": \"completed\"}}\n").expect("somebody listens");
    }
}
