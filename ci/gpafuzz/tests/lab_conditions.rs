//! A lab in bad conditions: what is said, which exit status, and that nothing is left behind.
//!
//! QEMU and cargo are stand-ins in a `PATH` of our own: this test's own binary, started as QEMU would be, speaks for the runner
//! inside, so no machine is booted and nothing is built.

use gpa_model::{Exit, text};
use hw_runner::{Trace, trace};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What the stand-in is started with, and how it behaves.
const ARGUMENTS: &str = "FAKE_QEMU_ARGUMENTS";
const BEHAVIOUR: &str = "FAKE_QEMU";
/// Where it leaves its process number.
const PID_FILE: &str = "FAKE_QEMU_PID";

/// Questions that it answers before it does what it is there for: the first is about what machine it is.
const ANSWERS: usize = 5;

/// A folder with a `PATH`, a cache, a kernel and whatever a lab leaves.
struct Place(TempDir);

impl Place {
    fn new(qemu_help: &str) -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        for folder in ["bin", "cache", "kernel", "tmp"] {
            fs::create_dir(place.at(folder)).expect("a folder");
        }
        let mut image = vec![0; 0x300];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x80u16.to_le_bytes());
        image[0x280..0x285].copy_from_slice(b"6.99 ");
        fs::write(place.at("kernel/bzImage"), image).expect("an image");
        let this = std::env::current_exe().expect("this binary");
        place.script(
            "qemu-system-x86_64",
            &format!(
                "case $1 in\n--version) echo 'QEMU emulator version 7.2.0'; exit ;;\n--help) echo '{qemu_help}'; exit ;;\nesac\n\
                 echo $$ >> \"${PID_FILE}\"\n{ARGUMENTS}=\"$*\" exec '{}' --exact stand_in_for_qemu --ignored --nocapture",
                this.display()
            ),
        );
        place.script(
            "cargo",
            "while [ $# -gt 0 ]; do case $1 in --target-dir) d=$2 ;; --target) t=$2 ;; esac; shift; done\n\
             mkdir -p \"$d/release\" \"$d/$t/release\"\n\
             echo > \"$d/$t/release/hw-runner\"; echo > \"$d/release/liblinux_kvm_plugin.so\"",
        );
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn script(&self, name: &str, body: &str) {
        let path = self.at("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a script that runs");
    }

    /// `gpafuzz fuzz` on a lab whose QEMU behaves so.
    fn fuzz(&self, behaviour: &str, length: &[&str]) -> Command {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([self.at("bin")].into_iter().chain(std::env::split_paths(&path)));
        // A job in the background of a script ignores Ctrl-C, and so would all that it starts.
        let mut command = Command::new("/usr/bin/env");
        command.args(["--default-signal=INT", env!("CARGO_BIN_EXE_gpafuzz")]);
        command.args(["fuzz", "--target", "linux-kvm-npt", "--kernel-dir"]).arg(self.at("kernel"));
        // Each campaign writes to a folder of its own: some run at once.
        static CAMPAIGNS: AtomicUsize = AtomicUsize::new(0);
        let out = self.at(&format!("out-{}", CAMPAIGNS.fetch_add(1, Relaxed)));
        command.args(length).arg("--out").arg(out).current_dir(self.0.path());
        command.env("PATH", path.expect("a path")).env("CARGO", self.at("bin/cargo"));
        command.env("GPAFUZZ_LAB", self.at("cache")).env("TMPDIR", self.at("tmp"));
        command.env(BEHAVIOUR, behaviour).env(PID_FILE, self.at("pids"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Run it, and see that it leaves no process and no folder.
    fn run(&self, behaviour: &str) -> Output {
        let output = self.fuzz(behaviour, &["--runs", "40"]).output().expect("gpafuzz runs");
        self.is_tidy();
        let left: Vec<_> = fs::read_dir(self.at("tmp")).expect("a folder").flatten().collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        output
    }

    fn is_tidy(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let pids = fs::read_to_string(self.at("pids")).unwrap_or_default();
        for pid in pids.lines() {
            // What the kernel was told to kill takes a moment to go.
            while is_alive(pid) {
                assert!(Instant::now() < deadline, "process {pid} goes on");
                thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// Wait until a stand-in has started.
    fn wait_for_qemu(&self) {
        while !fs::read_to_string(self.at("pids")).is_ok_and(|pids| pids.ends_with('\n')) {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn is_alive(pid: &str) -> bool {
    let state = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    // PID (NAME) STATE …
    state.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn interrupt(child: &Child) {
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.is_ok_and(|status| status.success()));
}

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
            _ => port.write_all(format!("{answer}\0").as_bytes()).expect("somebody listens"),
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

#[test]
fn without_qemu_it_says_what_to_install() {
    let place = Place::new("");
    fs::remove_file(place.at("bin/qemu-system-x86_64")).expect("it was there");
    let mut command = place.fuzz("", &["--runs", "1"]);
    let output = command.env("PATH", place.at("bin")).output().expect("gpafuzz runs");
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("install the package qemu-system-x86"), "{}", said(&output));
}

#[test]
fn an_old_qemu_without_plugins_runs_unguided_and_says_so() {
    let output = Place::new("-device").run("answers");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("7.2.0 takes no plugins"), "{}", said(&output));
}

#[test]
fn a_qemu_that_does_not_start_is_quoted() {
    let output = Place::new("-plugin file").run("refuses");
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("there is no such CPU"), "{}", said(&output));
}

#[test]
fn a_machine_that_dies_in_the_middle_of_an_answer_is_a_finding_and_the_next_one_goes_on() {
    let output = Place::new("-plugin file").run("dies");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("kernel/died/end/none/none"), "{}", said(&output));
    let boots = said(&output).lines().find_map(|line| line.strip_suffix(" boots")?.rsplit(' ').next()?.parse().ok());
    assert!(boots.is_some_and(|boots: u32| boots > 2), "{}", said(&output));
}

#[test]
fn a_machine_that_came_up_once_goes_on_from_there() {
    let place = Place::new("-plugin file");
    let (first, second) = (place.run("keeps"), place.run("keeps"));
    assert!(said(&first).contains("lab: booting Linux 6.99"), "{}", said(&first));
    assert!(said(&second).contains("lab: going on with Linux 6.99"), "{}", said(&second));
    assert!(!said(&second).contains("booting"), "{}", said(&second));
    assert_eq!([first.status.code(), second.status.code()], [Some(0), Some(0)]);
}

#[test]
fn a_state_that_does_not_go_on_is_forgotten_and_the_kernel_boots() {
    let place = Place::new("-plugin file");
    for behaviour in ["keeps", "keeps in vain"] {
        let output = place.run(behaviour);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert_eq!(said(&output).contains("so it boots"), behaviour == "keeps in vain", "{}", said(&output));
    }
}

#[test]
fn where_no_state_can_be_kept_it_says_so_and_goes_on() {
    let place = Place::new("-plugin file");
    for _ in 0..2 {
        let output = place.run("answers");
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(said(&output).contains("cannot be kept, so the next one boots, too"), "{}", said(&output));
    }
}

#[test]
fn an_answer_that_is_cut_short_ends_the_campaign_and_says_where() {
    let output = Place::new("-plugin file").run("truncates");
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("expected a trace from the lab, found"), "{}", said(&output));
}

#[test]
fn two_labs_at_once_use_one_cache() {
    let place = Place::new("-plugin file");
    let start = |_| place.fuzz("answers", &["--runs", "40"]).spawn().expect("gpafuzz runs");
    for child in [0, 1].map(start) {
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }
    place.is_tidy();
}

#[test]
fn ctrl_c_while_it_boots_leaves_no_machine() {
    let place = Place::new("-plugin file");
    let child = place.fuzz("boots for ever", &["--runs", "1"]).spawn().expect("gpafuzz runs");
    place.wait_for_qemu();
    interrupt(&child);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.signal(), Some(2), "{}", said(&output));
    place.is_tidy();
}

#[test]
fn ctrl_c_in_a_campaign_ends_it_with_its_results() {
    let place = Place::new("-plugin file");
    let mut child = place.fuzz("answers", &["--seconds", "600"]).spawn().expect("gpafuzz runs");
    let notes = BufReader::new(child.stderr.take().expect("its notes"));
    let begun = notes.lines().map_while(Result::ok).any(|line| line.starts_with("fuzzing linux-kvm-npt"));
    assert!(begun, "it never began");
    interrupt(&child);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("no oracle objects"), "{}", said(&output));
    place.is_tidy();
}
