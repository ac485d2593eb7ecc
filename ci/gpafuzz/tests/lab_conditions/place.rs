//! A place where a lab finds what a test puts there.

use super::{ARGUMENTS, BEHAVIOUR};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Where stand-ins leave their process numbers.
const PID_FILE: &str = "STAND_IN_PIDS";
/// Names the command that does not come to an end.
pub(crate) const STALLS: &str = "STAND_IN_STALLS";

/// A folder with a `PATH`, a cache, a kernel and whatever a lab leaves.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new(qemu_help: &str) -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        for folder in ["bin", "cache", "kernel", "tmp"] {
            fs::create_dir(place.at(folder)).expect("a folder");
        }
        place.image("kernel/bzImage", "6.99");
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

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What of a kernel's image says that it is one, of that release.
    pub(crate) fn image(&self, name: &str, release: &str) {
        let mut image = vec![0; 0x300];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x80u16.to_le_bytes());
        image[0x280..0x280 + release.len()].copy_from_slice(release.as_bytes());
        fs::write(self.at(name), image).expect("an image");
    }

    pub(crate) fn script(&self, name: &str, body: &str) {
        let path = self.at("bin").join(name);
        let stalls = format!("if [ \"${STALLS}\" = {name} ]; then echo $$ >> \"${PID_FILE}\"; exec sleep 600; fi");
        fs::write(&path, format!("#!/bin/sh\n{stalls}\n{body}\n")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a script that runs");
    }

    /// `gpafuzz fuzz` on a lab whose QEMU behaves so, with the kernel that is there.
    pub(crate) fn fuzz(&self, behaviour: &str, length: &[&str]) -> Command {
        let kernel = self.at("kernel").display().to_string();
        self.campaign(&["linux-kvm-npt", "--kernel-dir", &kernel], behaviour, length)
    }

    /// The same on any lab.
    pub(crate) fn campaign(&self, target: &[&str], behaviour: &str, length: &[&str]) -> Command {
        // Each campaign writes to a folder of its own: some run at once.
        static CAMPAIGNS: AtomicUsize = AtomicUsize::new(0);
        let out = self.at(&format!("out-{}", CAMPAIGNS.fetch_add(1, Relaxed)));
        let mut command = self.gpafuzz(behaviour);
        command.args(["fuzz", "--target"]).args(target).args(length).args(["--verbose", "--out"]).arg(out);
        command
    }

    /// `gpafuzz` where QEMU behaves so.
    pub(crate) fn gpafuzz(&self, behaviour: &str) -> Command {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([self.at("bin")].into_iter().chain(std::env::split_paths(&path)));
        // A job in the background of a script ignores Ctrl-C, and so would all that it starts.
        let mut command = Command::new("/usr/bin/env");
        command.args(["--default-signal=INT", env!("CARGO_BIN_EXE_gpafuzz")]);
        command.current_dir(self.0.path());
        command.env("PATH", path.expect("a path")).env("CARGO", self.at("bin/cargo"));
        command.env("GPAFUZZ_LAB", self.at("cache")).env("TMPDIR", self.at("tmp"));
        command.env(BEHAVIOUR, behaviour).env(PID_FILE, self.at("pids"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Run it, and see that it leaves no process and no folder.
    pub(crate) fn run(&self, behaviour: &str) -> Output {
        let output = self.fuzz(behaviour, &["--runs", "40"]).output().expect("gpafuzz runs");
        self.is_tidy();
        let left: Vec<_> = fs::read_dir(self.at("tmp")).expect("a folder").flatten().collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        output
    }

    pub(crate) fn is_tidy(&self) {
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
    pub(crate) fn wait_for_stand_in(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !fs::read_to_string(self.at("pids")).is_ok_and(|pids| pids.ends_with('\n')) {
            assert!(Instant::now() < deadline, "nothing was started");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn is_alive(pid: &str) -> bool {
    let state = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    // PID (NAME) STATE …
    state.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

pub(crate) fn interrupt(child: &Child) {
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.is_ok_and(|status| status.success()));
}
