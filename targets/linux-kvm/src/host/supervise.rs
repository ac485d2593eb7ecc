//! Processes that do not outlive this one, however it ends.

use kernels::command::end_with_us;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// A process that is killed when this value goes, and by the kernel if this process is killed itself.
#[derive(Debug)]
pub(crate) struct Supervised(Child);

impl Supervised {
    /// Start `command` in a process group of its own, so that a terminal's Ctrl-C is for us alone.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        end_with_us(command.process_group(0), libc::SIGKILL).spawn().map(Self)
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<String> {
        self.0.try_wait().ok().flatten().map(|status| status.to_string())
    }

    /// Its process number.
    #[cfg(test)]
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_supervised_process_ends_with_its_supervisor() {
        let mut process = Supervised::spawn(Command::new("sleep").arg("600")).unwrap();
        assert_eq!(process.ended(), None);
        let entry = format!("/proc/{}", process.id());
        assert!(Path::new(&entry).exists());
        drop(process);
        assert!(!Path::new(&entry).exists());
    }
}
