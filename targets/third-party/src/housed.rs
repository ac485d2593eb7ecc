//! Tables of a crate together with the memory that they are made of.

use crate::arena::Arena;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The tables `T` of one VM after the other, each with an arena of its own.
pub(crate) struct Housed<T> {
    arena: RefCell<Arena>,
    tables: Option<T>,
    /// Whether the crate panicked in the middle of a change. Its destructors would go by what it left half done.
    broken: bool,
}

impl<T> Housed<T> {
    /// No tables yet.
    pub(crate) fn empty() -> Self {
        Self { arena: RefCell::default(), tables: None, broken: false }
    }

    /// Drop the tables of the last VM, and make those of the next.
    pub(crate) fn renew(&mut self, make: impl FnOnce() -> T) {
        self.clear();
        self.broken = false;
        self.tables = Some(Arena::during(&self.arena, make));
    }

    /// Change the tables.
    pub(crate) fn change<R>(&mut self, f: impl FnOnce(&mut T) -> R) -> R {
        self.broken = true;
        let tables = self.tables.as_mut().expect("a VM was made");
        let result = Arena::during(&self.arena, || f(tables));
        self.broken = false;
        result
    }

    /// Look into the tables.
    pub(crate) fn look<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        let tables = self.tables.as_ref().expect("a VM was made");
        Arena::during(&self.arena, || f(tables))
    }

    fn clear(&mut self) {
        let tables = self.tables.take();
        if self.broken {
            std::mem::forget(tables);
        } else {
            self.broken = true;
            Arena::during(&self.arena, || drop(tables));
        }
        self.arena.take();
    }
}

impl<T> Drop for Housed<T> {
    fn drop(&mut self) {
        // Whatever it comes to, it must not end the process.
        let _ = catch_unwind(AssertUnwindSafe(|| self.clear()));
    }
}
