//! A thread that runs one vCPU's access while the machine's thread goes on. It is kept, because creating a
//! thread takes longer than an access.

use crate::error::{Doing, MachineError};
use crate::guest::requests::Request;
use crate::guest::vcpu::{Outcome, Vcpu};
use crate::host::memory::Pages;
use crate::host::watchdog::Watchdog;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};

/// The thread. It returns each vCPU that it is given.
#[derive(Debug)]
pub(super) struct Helper {
    /// `None` once this is dropped, which ends the thread.
    asked: Option<Sender<(Vcpu, Request)>>,
    ended: Receiver<Ended>,
    thread: Option<JoinHandle<()>>,
}

/// A vCPU after its access, with the outcome.
pub(super) type Ended = (Vcpu, Result<Outcome, MachineError>);

impl Helper {
    /// Starts a thread for guests whose own memory is `own`.
    pub(super) fn new(own: Arc<Pages>) -> Result<Self, MachineError> {
        let (asked, accesses) = channel();
        let (end, ended) = channel();
        let work = move || {
            let mut watchdog = None;
            for (mut vcpu, request) in accesses {
                let outcome = access(&mut vcpu, &own, &mut watchdog, request);
                if end.send((vcpu, outcome)).is_err() {
                    break;
                }
            }
        };
        let thread = thread::Builder::new().spawn(work).doing("start a thread")?;
        Ok(Self { asked: Some(asked), ended, thread: Some(thread) })
    }

    /// Starts an access of `vcpu`.
    pub(super) fn start(&self, vcpu: Vcpu, request: Request) -> Result<(), MachineError> {
        let sent = self.asked.as_ref().is_some_and(|asked| asked.send((vcpu, request)).is_ok());
        if sent { Ok(()) } else { Err(gone()) }
    }

    /// The vCPU, if its access has ended.
    pub(super) fn try_end(&self) -> Result<Option<Ended>, MachineError> {
        match self.ended.try_recv() {
            Ok(ended) => Ok(Some(ended)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(gone()),
        }
    }

    /// Waits for the access to end, and returns the vCPU.
    pub(super) fn end(&self) -> Result<Ended, MachineError> {
        self.ended.recv().map_err(|_| gone())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.asked.take());
        if let Some(thread) = self.thread.take() {
            // A panic was already reported to the caller that waited for the vCPU.
            let _ = thread.join();
        }
    }
}

fn access(
    vcpu: &mut Vcpu,
    own: &Pages,
    watchdog: &mut Option<Watchdog>,
    request: Request,
) -> Result<Outcome, MachineError> {
    // A watchdog interrupts the thread that creates it.
    let watchdog = match watchdog {
        Some(watchdog) => watchdog,
        None => watchdog.insert(Watchdog::new().doing("set up the watchdog")?),
    };
    watchdog.arm().doing("arm the watchdog")?;
    let mut outcomes = Vec::with_capacity(1);
    let result = vcpu.run(own, watchdog, &[request], false, &mut outcomes);
    watchdog.disarm();
    result.map(|()| outcomes[0])
}

fn gone() -> MachineError {
    MachineError::Exit("a panic of a vCPU's thread".into())
}
