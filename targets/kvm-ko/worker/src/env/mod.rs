//! The kernel's core as far as KVM calls it, in this program.
//!
//! What is neither here, nor in the part that is compiled with the kernel's headers, is a trap: using it is an alarm that names it.

mod allocate;
mod locks;
mod nothing;
mod pages;
mod patch;
mod rcu;
mod text;
mod thunks;

use crate::loader::Answer;
use std::collections::BTreeMap;

pub(crate) use pages::begin as begin_pages;
pub(crate) use rcu::run_callbacks;
pub(crate) use thunks::user_access;

/// A function of this program that kernel code calls.
macro_rules! functions {
    ($($name:literal => $function:expr),* $(,)?) => {
        [$(($name, Answer::Function($function as *const () as u64))),*]
    };
}
pub(crate) use functions;

/// All that is answered here.
pub(crate) fn answers() -> BTreeMap<&'static str, Answer> {
    let mut answers = BTreeMap::new();
    answers.extend(nothing::answers());
    answers.extend(allocate::answers());
    answers.extend(locks::answers());
    answers.extend(pages::answers());
    answers.extend(patch::answers());
    answers.extend(rcu::answers());
    answers.extend(text::answers());
    answers.extend(thunks::answers());
    answers
}

/// What is wrong with the heap becomes alarms.
pub(crate) fn report_damage() {
    allocate::report_damage();
}
