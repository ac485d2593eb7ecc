//! A timer that interrupts this thread, so that a guest that never exits becomes an error instead of a hang.
#![expect(unsafe_code, reason = "POSIX timers and signal handlers have no safe wrapper")]

use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

/// How long one program may take; it needs milliseconds.
const LIMIT: Duration = Duration::from_secs(5);
/// How often the timer asks again, because a signal that comes just before `KVM_RUN` is lost.
const AGAIN: Duration = Duration::from_millis(100);
/// How often it is looked whether an access gets anywhere.
const ROUSE: Duration = Duration::from_millis(2);

/// A timer of the thread that made it. Its signal does nothing but make `KVM_RUN` return `EINTR`.
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
        // SAFETY: both structures are plain data for which zero is valid; all fields that matter are set before use.
        let (mut action, mut event): (libc::sigaction, libc::sigevent) =
            unsafe { (MaybeUninit::zeroed().assume_init(), MaybeUninit::zeroed().assume_init()) };
        action.sa_sigaction = wake as *const () as usize;
        // SAFETY: the handler touches nothing. Without SA_RESTART, so that a blocked ioctl returns.
        check(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) })?;
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        // SAFETY: takes no argument.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        let mut timer = std::ptr::null_mut();
        // SAFETY: `event` is initialised and `timer` is written before it is read.
        check(unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) })?;
        Ok(Self { timer, limit, deadline: None, this_thread_only: PhantomData })
    }

    /// After how long it is up.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Start counting.
    pub(crate) fn arm(&mut self) -> io::Result<()> {
        self.deadline = Some(Instant::now() + self.limit);
        self.set(self.limit, AGAIN)
    }

    /// Interrupt this thread every so often until it is disarmed; what counts goes on counting.
    pub(crate) fn rouse(&mut self) -> io::Result<()> {
        self.set(ROUSE, ROUSE)
    }

    /// Stop counting.
    pub(crate) fn disarm(&mut self) {
        self.deadline = None;
        // A timer that stays armed only costs interrupted system calls, which everybody has to expect.
        let _ = self.set(Duration::ZERO, Duration::ZERO);
    }

    /// Whether the time is up. To be asked when a system call was interrupted.
    pub(crate) fn expired(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn set(&mut self, first: Duration, again: Duration) -> io::Result<()> {
        let spec = libc::itimerspec { it_value: timespec(first), it_interval: timespec(again) };
        // SAFETY: the timer is ours until drop, and the old setting is not asked for.
        check(unsafe { libc::timer_settime(self.timer, 0, &raw const spec, std::ptr::null_mut()) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // SAFETY: the timer is ours and not used again.
        unsafe { libc::timer_delete(self.timer) };
    }
}

fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec { tv_sec: duration.as_secs() as libc::time_t, tv_nsec: duration.subsec_nanos().into() }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
