//! The loader: ELF objects of the kernel become code and data in this process.
//!
//! All are laid out before any is relocated, so that the part that is compiled here and the modules may refer to each other.

mod backtrace;
mod low;
mod module;
mod patch;
mod symbols;
mod tables;

use crate::single::Single;

pub(crate) use backtrace::{backtrace, backtrace_here, name_of};
pub(crate) use low::{CALLER, Low};
pub(crate) use module::{Module, place};
pub(crate) use patch::{Hook, jump_label, jump_labels, redirect, remove_privileged, static_call};
pub(crate) use symbols::{Answer, Symbols, unanswered};
pub(crate) use tables::{fixup, may_fault, rearm_once, warning_at};

static MODULES: Single<Vec<Module>> = Single::new(Vec::new());

/// From now on these are the modules that are loaded.
pub(crate) fn install(modules: Vec<Module>) {
    MODULES.set(modules);
}

/// What `task` makes of the modules that are loaded.
pub(crate) fn with_modules<R>(task: impl FnOnce(&[Module]) -> R) -> R {
    task(&MODULES.borrow())
}
