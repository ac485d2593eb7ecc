//! The laws of GPA aliasing, one a file, and the lockstep run that judges an implementation by them.
//!
//! [`Lockstep::run`] carries out a program on an [`Mmu`](gpa_model::Mmu) and on the reference model side by side. After each
//! op every [`Oracle`] sees the [`Step`]: what was done, what the model allows, what the target answered, which flushes it
//! asked for and what its tables now hold. An oracle that objects ends the run with a [`Violation`].
//!
//! Each clause counts what it checked, what it had nothing to judge in, and what the target
//! could not show ([`Tally`]).

pub mod laws;
mod observe;
mod run;

pub use laws::{all, only};
pub use observe::{Blame, Clause, End, Objection, Oracle, Signature, Step, Tally, View, Violation};
pub use run::{Coverage, Event, Features, Lockstep, OpCounts, coverage, features, mark_op, report};
