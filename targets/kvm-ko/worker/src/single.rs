//! State that one thread owns, though functions without arguments have to find it: the kernel calls them.
//!
//! UNSAFETY: the process has one thread that runs kernel code, so a value in a static is shared with no other thread.

#![expect(unsafe_code, reason = "a static of the one thread that runs kernel code")]

use std::cell::{RefCell, RefMut};

/// A value that only the thread which loaded the kernel touches.
pub(crate) struct Single<T>(RefCell<T>);

// SAFETY: `Kernel` is the one way in, is made once a process, and cannot be sent to another thread.
unsafe impl<T> Sync for Single<T> {}

impl<T> Single<T> {
    /// Hold `value`.
    pub(crate) const fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    /// The value.
    ///
    /// # Panics
    /// If it is borrowed already, which would be a mistake here.
    pub(crate) fn borrow(&self) -> RefMut<'_, T> {
        self.0.borrow_mut()
    }

    /// A copy of the value.
    pub(crate) fn get(&self) -> T
    where
        T: Copy,
    {
        *self.0.borrow()
    }

    /// Put another value in its place, and have the one that was there.
    pub(crate) fn set(&self, value: T) -> T {
        self.0.replace(value)
    }
}
