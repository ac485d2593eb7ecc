//! The kernel's KVM as the driver sees it: files to call, memory of the host to change, accesses of the guest to make, and tables to
//! look into.

mod files;
mod flush;
mod functions;
mod guest;
mod host;
mod inside;
mod load;
mod plant;
mod processor;
mod requests;
mod vcpu;

pub use crate::alarm::{Alarm, AlarmKind, Event};
pub use crate::context::{Begun, Point, Thread};
pub use crate::cpu::{Access, Kind};
pub use crate::memory::host::Protection;
pub use files::{Failure, Fd, SYSTEM};
pub use flush::FlushMode;
pub use guest::Entered;
pub use host::{Ageing, Phase, hva};
pub use inside::{Entry, Page, Root, Slot, Table, TlbEntry};
pub use load::{LoadError, Options, Vendor};
pub use requests::Rmap;
pub use vcpu::Mode;

use crate::context::{self, call};
use crate::cpu::format::Format;
use crate::loader::Symbols;
use functions::{Function, Functions};
use std::marker::PhantomData;

/// A kernel that is loaded. There is one a process, and it stays on its thread.
#[derive(Debug)]
pub struct Kernel {
    symbols: Symbols,
    functions: Functions,
    vendor: Vendor,
    physical_bits: u8,
    /// Of the tables that KVM makes.
    format: Format,
    /// Objects of the heap while there is no VM.
    idle_objects: u64,
    one_thread: PhantomData<*const ()>,
}

impl Kernel {
    /// Call a function of the compiled part.
    fn call(&self, function: Function, arguments: &[u64]) -> Result<u64, Failure> {
        call(self.functions.address(function), arguments).map_err(|_| Failure::Dead)
    }

    /// Begin a thread that does `task`, until it is at one of `stop_at`, waits for another thread, or has ended.
    ///
    /// `task` is given the kernel. All that is asked of the kernel meanwhile happens while the thread is where it is.
    pub fn begin<R: 'static>(&'static self, stop_at: &[Point], task: impl FnOnce(&Kernel) -> R + 'static) -> Begun<R> {
        context::begin(stop_at, move || task(self))
    }

    /// Go on with a thread that is held. `R` is what its task gives.
    ///
    /// # Panics
    /// If the thread's result was taken already, or is not an `R`.
    pub fn resume<R: 'static>(&self, thread: Thread, stop_at: &[Point]) -> Begun<R> {
        context::resume(thread, stop_at)
    }

    /// What happened since this was asked last, in order.
    pub fn take_events(&self) -> Vec<Event> {
        crate::alarm::take()
    }

    /// Call `hook` when the kernel dies, before anything else is done; the stack may be that of a signal.
    pub fn on_death(&self, hook: fn(&Alarm)) {
        crate::alarm::on_death(hook);
    }
}
