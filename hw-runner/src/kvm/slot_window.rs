//! The time between the two halves of a memslot change, on a KVM that was built to wait there.
//!
//! User space sees a change of memslots only as a whole: KVM marks the old slot INVALID, zaps what maps it, and puts the new one in
//! its place, all in one ioctl. The lab's KVM can be told to stay in the middle, so another thread makes the change while this one
//! lets vCPUs run.

use crate::error::{Doing, MachineError};
use std::io;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What the next change is to do, and what it does.
const PARAMETER: &str = "/sys/module/kvm/parameters/stolen_slot_window";
/// Nobody waits, or has to any longer.
const CLOSED: &str = "0";
/// The next deletion or move is to wait.
const OPENS: &str = "1";
/// It waits.
const IS_OPEN: &str = "2";

/// How long KVM may take to get there.
const LIMIT: Duration = Duration::from_secs(5);
/// How often it is looked.
const AGAIN: Duration = Duration::from_micros(200);

/// A change in its middle.
#[derive(Debug)]
pub(crate) struct SlotWindow {
    change: JoinHandle<io::Result<()>>,
}

impl SlotWindow {
    /// Whether this KVM can wait.
    pub(crate) fn is_possible() -> bool {
        Path::new(PARAMETER).exists()
    }

    /// Begin `change`, the ioctl that deletes or moves a slot, and return when it waits.
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

    /// Let the change go on, and wait until it is done.
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
