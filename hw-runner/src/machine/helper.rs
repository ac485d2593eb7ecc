//! A thread that has one vCPU make an access while this one goes on. It is made once: to make a thread takes longer than an access.

use crate::error::{Doing, MachineError};
use crate::guest::code::Request;
use crate::guest::vcpu::{Outcome, Vcpu};
use crate::host::memory::Pages;
use crate::host::watchdog::Watchdog;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};

/// The thread. A vCPU that was given to it comes back.
#[derive(Debug)]
pub(super) struct Helper {
    /// There until this is dropped, which ends the thread.
    asked: Option<Sender<(Vcpu, Request)>>,
    ended: Receiver<Ended>,
    thread: Option<JoinHandle<()>>,
}

/// A vCPU that has made its access, and what became of that.
pub(super) type Ended = (Vcpu, Result<Outcome, MachineError>);

impl Helper {
    /// A thread for guests whose own memory is `own`.
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

    /// Have `vcpu` make an access.
    pub(super) fn start(&self, vcpu: Vcpu, request: Request) -> Result<(), MachineError> {
        let sent = self.asked.as_ref().is_some_and(|asked| asked.send((vcpu, request)).is_ok());
        if sent { Ok(()) } else { Err(gone()) }
    }

    /// The vCPU that was given to it, if its access has ended.
    pub(super) fn try_end(&self) -> Result<Option<Ended>, MachineError> {
        match self.ended.try_recv() {
            Ok(ended) => Ok(Some(ended)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(gone()),
        }
    }

    /// The vCPU that was given to it, when its access has ended.
    pub(super) fn end(&self) -> Result<Ended, MachineError> {
        self.ended.recv().map_err(|_| gone())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.asked.take());
        if let Some(thread) = self.thread.take() {
            // Whatever it died of was said by whoever waited for it.
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
    // It interrupts the thread that made it.
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
