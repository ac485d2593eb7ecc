//! The locks and atomics of this crate. Under `--cfg shuttle` they belong to a scheduler that explores the
//! interleavings of `tests/threads.rs`.

#[cfg(not(shuttle))]
use std::sync as from;

#[cfg(shuttle)]
use shuttle::sync as from;

pub(crate) use from::atomic::{AtomicU64, Ordering};
use from::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::sync::PoisonError;

/// Waits a moment for other threads.
pub(crate) fn spin() {
    #[cfg(not(shuttle))]
    std::hint::spin_loop();
    #[cfg(shuttle)]
    shuttle::thread::yield_now();
}

/// A mutex that ignores poisoning: a caller that catches a panic resets the state.
#[derive(Debug, Default)]
pub(crate) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Access without locking: the reference is exclusive.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same for many readers or one writer.
#[derive(Debug, Default)]
pub(crate) struct ReadLock<T>(RwLock<T>);

impl<T> ReadLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(RwLock::new(value))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Access without locking: the reference is exclusive.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}
