//! What an oracle objects to, and what makes two findings the same.

use gpa_model::{Alias, Model, OpKind, SlotKind};
use std::fmt;

/// The address an objection is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blame {
    /// Its frame in the window.
    pub frame: usize,
    /// Its alias.
    pub alias: Alias,
}

/// What an oracle has to say against a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// Which clause: an index into [`Oracle::clauses`](super::Oracle::clauses).
    pub clause: usize,
    /// The address it is about, if it is about one.
    pub blame: Option<Blame>,
    /// What was found and what would have been right.
    pub why: String,
}

/// What makes two findings the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Signature {
    /// The oracle that objected, `panic`, or `kernel` if the target itself did.
    pub oracle: &'static str,
    /// The clause of its law.
    pub clause: &'static str,
    /// The kind of the op at which it objected.
    pub op: &'static str,
    /// Whether the address it is about is `base`, an `alias`, or there is `none`.
    pub alias: &'static str,
    /// What stands behind that address: a [`SlotKind`] name, or `none`.
    pub slot: &'static str,
}

impl Signature {
    pub(crate) fn new(
        oracle: &'static str,
        clause: &'static str,
        op: Option<OpKind>,
        model: &Model,
        blame: Option<Blame>,
    ) -> Self {
        let alias = blame.map_or("none", |blame| if blame.alias.is_none() { "base" } else { "alias" });
        let slot = blame.map_or("none", |blame| SlotKind::name(model.slot_kind(blame.frame)));
        Self { oracle, clause, op: op.map_or("end", OpKind::name), alias, slot }
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}/{}", self.oracle, self.clause, self.op, self.alias, self.slot)
    }
}

/// A law is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What makes it the same as another.
    pub signature: Signature,
    /// Number of the op at which it showed, from 0; the number of ops if it showed at the end.
    pub at: usize,
    /// What was found and what would have been right.
    pub why: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.signature, self.why)
    }
}
