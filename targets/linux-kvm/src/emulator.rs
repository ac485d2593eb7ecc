//! Emulators: what plays the processor, and how one is started with an image in it.

pub(crate) mod bochs;
pub mod coverage;
pub(crate) mod monitor;
pub(crate) mod qemu;

use crate::host::port::Port;
use crate::host::run_dir::RunDir;
use crate::host::supervise::Supervised;
use coverage::Map;
use kernels::Error;
use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// What the kernel is told: say what matters, on the serial line, and stop at a panic.
///
/// Without `no_timer_check` a kernel that gets too little of a busy machine's time takes its timer for broken, and panics.
pub(crate) const COMMAND_LINE: &str = "console=ttyS0 loglevel=5 panic=-1 no_timer_check rcupdate.rcu_expedited=1";
/// With 512 MB or less Linux makes no huge pages of its own accord, and KVM then maps none.
pub(crate) const MEMORY_MB: &str = "640";
/// The environment variable that says how many seconds an answer may take.
pub(crate) const ANSWER_SECONDS: &str = "GPAFUZZ_LAB_SECONDS";

/// What plays the processor, and with it the virtualization that KVM is built on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emulator {
    /// QEMU: SVM with nested paging.
    Qemu,
    /// Bochs: VMX with EPT; some hundred times slower.
    Bochs,
}

impl Emulator {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qemu => "QEMU",
            Self::Bochs => "Bochs",
        }
    }

    /// How long a boot takes, in words.
    pub(crate) const fn boots_in(self) -> &'static str {
        match self {
            Self::Qemu => "which takes seconds",
            Self::Bochs => "which takes minutes",
        }
    }

    /// The modules that the kernel needs there beside what is built into it.
    pub(crate) const fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Qemu => &["virtio_pci", "virtio_console", "kvm_amd"],
            Self::Bochs => &["kvm_intel"],
        }
    }

    /// What the port is called inside.
    pub(crate) const fn port(self) -> &'static str {
        match self {
            // The first port of the first virtio console that is no console.
            Self::Qemu => "/dev/vport0p1",
            Self::Bochs => "/dev/ttyS1",
        }
    }

    /// Functions of KVM's whose WARNs are the emulator's own fault. Bochs 2.7 writes GPAs with their offsets in the page to the PML
    /// buffer, where a processor leaves those bits 0 (SDM, "Page-Modification Logging"); the function that finds them there is
    /// one that compilers put into its caller.
    pub(crate) const fn excused(self) -> &'static [&'static str] {
        match self {
            Self::Qemu => &[],
            Self::Bochs => &["vmx_flush_pml_buffer", "vmx_handle_exit"],
        }
    }

    /// How long a boot may take; it takes 10 s, or 4 minutes on a machine that has time for it.
    pub(crate) const fn boot_limit(self) -> Duration {
        match self {
            Self::Qemu => Duration::from_secs(180),
            Self::Bochs => Duration::from_secs(1800),
        }
    }

    /// How long an answer may take, if [`ANSWER_SECONDS`] does not say; it takes milliseconds, or seconds, and the runner inside
    /// gives up a guest after 5 s of its time.
    const fn answer_limit(self) -> Duration {
        match self {
            Self::Qemu => Duration::from_secs(30),
            Self::Bochs => Duration::from_secs(900),
        }
    }

    /// How long an answer may take.
    ///
    /// # Errors
    /// [`Error::Absent`] if [`ANSWER_SECONDS`] is no number of seconds.
    pub(crate) fn patience(self) -> Result<Duration, Error> {
        seconds(std::env::var_os(ANSWER_SECONDS).as_deref(), self.answer_limit())
    }
}

/// What to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its first file system.
    pub initrd: Vec<u8>,
    /// The end of its command line.
    pub words: String,
    /// The plugin that watches which blocks are executed, a shared library.
    pub plugin: Option<Vec<u8>>,
}

/// An emulator that was just started, with an image in it.
pub(crate) struct Started {
    pub(crate) process: Supervised,
    pub(crate) port: Port,
    pub(crate) map: Option<Map>,
}

/// As many seconds as `said`, if anything is.
fn seconds(said: Option<&OsStr>, otherwise: Duration) -> Result<Duration, Error> {
    const MOST: u64 = 86_400;
    let Some(said) = said else { return Ok(otherwise) };
    let seconds = said.to_str().and_then(|text| text.parse().ok()).filter(|seconds| (1..=MOST).contains(seconds));
    let wrong =
        || format!("expected ${ANSWER_SECONDS} to be a number of seconds from 1 to {MOST}, found `{}`", said.display());
    seconds.map(Duration::from_secs).ok_or_else(|| Error::Absent(wrong()))
}

/// The file that a machine in `dir` writes its console to.
pub(crate) fn console(dir: &RunDir) -> PathBuf {
    dir.path().join("console")
}

/// The file that the emulator itself complains to.
pub(crate) fn errors(dir: &RunDir) -> PathBuf {
    dir.path().join("errors")
}

/// What the emulator itself has complained about.
pub(crate) fn complaints(dir: &RunDir) -> String {
    std::fs::read_to_string(errors(dir)).unwrap_or_default()
}

/// What to say if the emulator cannot be started. `package` is the one that has it.
pub(crate) fn absent(command: &str, package: &str) -> impl Fn(io::Error) -> Error {
    let (command, package) = (command.to_owned(), package.to_owned());
    move |error| {
        Error::Absent(format!("expected the command `{command}`, found: {error}; install the package {package}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_what_is_said_or_else_the_usual_one() {
        let usual = Duration::from_secs(30);
        assert_eq!(seconds(None, usual), Ok(usual));
        assert_eq!(seconds(Some("2".as_ref()), usual), Ok(Duration::from_secs(2)));
        for bad in ["", "0", "-1", "soon", "86401"] {
            let why = seconds(Some(bad.as_ref()), usual).unwrap_err().to_string();
            assert!(why.contains(ANSWER_SECONDS) && why.contains(&format!("`{bad}`")), "{why}");
        }
    }
}
