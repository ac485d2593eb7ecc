//! A timer that interrupts this thread, so that a guest that never exits is an error instead of a hang.
#![expect(unsafe_code, reason = "POSIX timers and signal handlers have no safe wrapper")]

use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

/// How long one program may run; it needs milliseconds.
const LIMIT: Duration = Duration::from_secs(5);
/// How often the signal is repeated after that: one that arrives just before `KVM_RUN` is lost.
const AGAIN: Duration = Duration::from_millis(100);
/// How often `KVM_RUN` is interrupted to see whether an access makes progress.
const ROUSE: Duration = Duration::from_millis(2);

/// A timer that signals the thread that created it. The signal only makes `KVM_RUN` return `EINTR`.
#[derive(Debug)]
pub(crate) struct Watchdog {
    timer: libc::timer_t,
    limit: Duration,
    deadline: Option<Instant>,
    this_thread_only: PhantomData<*const ()>,
}

extern "C" fn wake(_signal: libc::c_int) {}

impl Watchdog {
    pub(crate) fn new() -> io::Result<Self> {
        Self::with_limit(LIMIT)
    }

    pub(crate) fn with_limit(limit: Duration) -> io::Result<Self> {
        let signal = libc::SIGRTMIN() + 7;
        // SAFETY: zero is valid for both structures of plain data; all fields that matter are set before use.
        let (mut action, mut event): (libc::sigaction, libc::sigevent) =
            unsafe { (MaybeUninit::zeroed().assume_init(), MaybeUninit::zeroed().assume_init()) };
        action.sa_sigaction = wake as *const () as usize;
        // SAFETY: the handler touches nothing. Without SA_RESTART a blocked ioctl returns.
        check(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) })?;
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        // SAFETY: takes no argument.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        let mut timer = std::ptr::null_mut();
        // SAFETY: `event` is initialised, and the call writes `timer` before it is read.
        check(unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) })?;
        Ok(Self { timer, limit, deadline: None, this_thread_only: PhantomData })
    }

    /// The time limit.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Starts the timer.
    pub(crate) fn arm(&mut self) -> io::Result<()> {
        self.deadline = Some(Instant::now() + self.limit);
        self.set(self.limit, AGAIN)
    }

    /// Interrupts this thread every [`ROUSE`] until the timer is disarmed. The deadline stays.
    pub(crate) fn rouse(&mut self) -> io::Result<()> {
        self.set(ROUSE, ROUSE)
    }

    /// Stops the timer.
    pub(crate) fn disarm(&mut self) {
        self.deadline = None;
        // A timer that stays armed only interrupts system calls, which every caller handles.
        let _ = self.set(Duration::ZERO, Duration::ZERO);
    }

    /// Whether the time limit has passed; for callers whose system call was interrupted.
    pub(crate) fn expired(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn set(&mut self, first: Duration, again: Duration) -> io::Result<()> {
        let spec = libc::itimerspec { it_value: timespec(first), it_interval: timespec(again) };
        // SAFETY: this value owns the timer until drop, and does not ask for the old setting.
        check(unsafe { libc::timer_settime(self.timer, 0, &raw const spec, std::ptr::null_mut()) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // SAFETY: this value owns the timer, which is not used again.
        unsafe { libc::timer_delete(self.timer) };
    }
}

fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec { tv_sec: duration.as_secs() as libc::time_t, tv_nsec: duration.subsec_nanos().into() }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
