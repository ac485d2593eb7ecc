//! The laws of GPA aliasing, one a file, and the lockstep run that judges an implementation by them.
//!
//! [`Lockstep::run`] carries out a program on an [`Mmu`](gpa_model::Mmu) and on the reference model side by side. After each
//! op every [`Oracle`] sees the [`Step`]: what was done, what the model allows, what the target answered, which flushes it
//! asked for and what its tables now hold. An oracle that objects ends the run with a [`Violation`].
//!
//! No oracle passes vacuously: each clause counts what it checked, what it had nothing to judge in, and what the target
//! could not show ([`Tally`]).

pub mod alias_flush;
pub mod coverage;
pub mod dirty_log;
pub mod features;
pub mod gfn_unalias;
pub mod large_leaf;
pub mod lockstep;
pub mod private_slot;
pub mod progress;
pub mod report;
pub mod step;
pub mod structure;
pub mod view;

pub use coverage::Coverage;
pub use features::Features;
pub use lockstep::{Lockstep, OpCounts};
pub use report::report;
pub use step::{Blame, Clause, End, Objection, Oracle, Signature, Step, Tally, Violation};
pub use view::View;

/// Every oracle, in the order in which they are asked.
pub fn all() -> Vec<Box<dyn Oracle + Send>> {
    vec![
        Box::new(progress::Progress),
        Box::new(private_slot::PrivateSlot),
        Box::new(alias_flush::AliasFlush::default()),
        Box::new(gfn_unalias::GfnUnalias::default()),
        Box::new(large_leaf::LargeLeaf),
        Box::new(dirty_log::DirtyLog),
        Box::new(structure::Structure::default()),
    ]
}

/// The oracle called `name`, alone, so that no other objects first; none if there is no such oracle.
pub fn only(name: &str) -> Vec<Box<dyn Oracle + Send>> {
    all().into_iter().filter(|oracle| oracle.name() == name).collect()
}

/// The README's examples, as tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
