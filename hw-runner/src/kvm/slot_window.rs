//! The window between the two halves of a memslot change, on a kernel of the lab that can wait there.
//!
//! User space sees a change of memslots as a whole: in one ioctl KVM marks the old memslot invalid, zaps its mappings, and
//! installs the new one. A kernel of the lab can be told to wait after the first half. Then another thread makes the change
//! while this one runs vCPUs.

use crate::error::{Doing, MachineError};
use std::io;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The module parameter: what the next change does, and the state of the current one.
const PARAMETER: &str = "/sys/module/kvm/parameters/stolen_slot_window";
/// No change waits.
const CLOSED: &str = "0";
/// The next deletion or move waits.
const OPENS: &str = "1";
/// A change waits.
const IS_OPEN: &str = "2";

/// How long KVM may take to reach the window.
const LIMIT: Duration = Duration::from_secs(5);
/// How often the parameter is read.
const AGAIN: Duration = Duration::from_micros(200);

/// A change that waits in its window.
#[derive(Debug)]
pub(crate) struct SlotWindow {
    change: JoinHandle<io::Result<()>>,
}

impl SlotWindow {
    /// Whether this kernel can wait.
    pub(crate) fn is_possible() -> bool {
        Path::new(PARAMETER).exists()
    }

    /// Starts `change`, the ioctl that deletes or moves a memslot, and returns when it waits.
    pub(crate) fn open(change: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<Self, MachineError> {
        set(OPENS)?;
        let window = Self { change: thread::spawn(change) };
        let start = Instant::now();
        while std::fs::read_to_string(PARAMETER).doing("read a parameter of kvm")?.trim() != IS_OPEN {
            if window.change.is_finished() || start.elapsed() > LIMIT {
                window.close()?;
                return Err(MachineError::Exit("a memslot change that did not wait in its middle".to_owned()));
            }
            thread::sleep(AGAIN);
        }
        Ok(window)
    }

    /// Lets the change go on, and returns when it is complete.
    pub(crate) fn close(self) -> Result<(), MachineError> {
        set(CLOSED)?;
        match self.change.join() {
            Ok(result) => result.doing("change a memslot"),
            Err(_) => Err(MachineError::Exit("a panic of the thread that changes a memslot".to_owned())),
        }
    }
}

fn set(value: &str) -> Result<(), MachineError> {
    std::fs::write(PARAMETER, value).doing("set a parameter of kvm")
}
