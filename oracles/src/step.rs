//! What an oracle sees and what it says: [`Step`], [`Oracle`], [`Tally`], [`Violation`] and its [`Signature`].

use crate::view::View;
use gpa_model::{Alias, Allowed, Capabilities, Exit, Flush, GfnIndexed, Gpa, Host, Model, Op, OpKind, SlotKind};
use std::fmt;

/// One op, seen from every side.
#[derive(Debug)]
pub struct Step<'a> {
    /// Number of the op in the program, from 0.
    pub at: usize,
    /// The op.
    pub op: &'a Op,
    /// The address a vCPU accessed, if the op is an access or the end of one.
    pub accessed: Option<Gpa>,
    /// What the target answered.
    pub exit: Exit,
    /// What the model allows.
    pub allowed: &'a Allowed,
    /// The model after the op.
    pub model: &'a Model,
    /// The host after the op.
    pub host: &'a Host,
    /// The flushes the target asked for, in order.
    pub flushes: &'a [Flush],
    /// How many of them came before the first table page was freed, if one was.
    pub freed_after: Option<usize>,
    /// What the target's tables held before and hold now.
    pub view: &'a View,
    /// What the op made the target warn of.
    pub warning: Option<&'static str>,
    /// What the target can show.
    pub capabilities: Capabilities,
}

impl Step<'_> {
    /// The `(frame, alias)` that was accessed.
    pub fn accessed_frame(&self) -> Option<(usize, Alias)> {
        self.accessed.and_then(|gpa| self.model.vm().locate(gpa))
    }
}

impl Step<'_> {
    /// The frame of a private slot that an access of a guest of the guest led to, where it must not find it.
    pub fn hidden_frame(&self) -> Option<usize> {
        let Op::GuestAccess { root, gva, access, .. } = *self.op else { return None };
        let gpa = self.model.guest_walk(self.host, root, gva, access).end.ok()?;
        self.model.vm().locate(gpa).map(|(frame, _)| frame).filter(|&frame| self.model.hides(frame))
    }
}

/// What is left when a program has ended.
#[derive(Debug)]
pub struct End<'a> {
    /// The model.
    pub model: &'a Model,
    /// The host.
    pub host: &'a Host,
    /// What the target's tables hold.
    pub view: &'a View,
    /// Everything the target keeps by gfn.
    pub keys: &'a [GfnIndexed],
    /// What the target can show.
    pub capabilities: Capabilities,
}

/// How often a clause was at stake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Judged, with something that could have been wrong.
    pub checked: u64,
    /// Came up, but there was nothing to judge: a legal retry, an empty set.
    pub skipped: u64,
    /// Came up, but the target cannot show it.
    pub unsupported: u64,
}

impl Tally {
    /// Count one.
    pub fn check(&mut self) {
        self.checked += 1;
    }

    /// Count one that was at stake only if `at_stake`.
    pub fn check_if(&mut self, at_stake: bool) {
        if at_stake {
            self.checked += 1;
        } else {
            self.skipped += 1;
        }
    }

    /// Count one with nothing to judge.
    pub fn skip(&mut self) {
        self.skipped += 1;
    }

    /// Count one that the target cannot show.
    pub fn cannot(&mut self) {
        self.unsupported += 1;
    }

    /// Add another's counts.
    pub fn add(&mut self, other: Tally) {
        self.checked += other.checked;
        self.skipped += other.skipped;
        self.unsupported += other.unsupported;
    }
}

/// A clause of an oracle's law, and what a target must show for it to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clause {
    /// The name used in signatures.
    pub name: &'static str,
    /// Whether it needs [`Capabilities::tables`].
    pub needs_tables: bool,
    /// Whether it needs [`Capabilities::flushes`].
    pub needs_flushes: bool,
    /// Whether it needs [`Capabilities::keys`].
    pub needs_keys: bool,
    /// Whether it needs [`Capabilities::rmap`].
    pub needs_rmap: bool,
    /// Whether it needs [`Capabilities::roots`].
    pub needs_roots: bool,
    /// Whether it needs [`Capabilities::shadows`].
    pub needs_shadows: bool,
    /// Whether it needs [`Capabilities::pins`].
    pub needs_pins: bool,
}

impl Clause {
    /// A clause that only needs exits.
    pub const fn exits(name: &'static str) -> Self {
        Self {
            name,
            needs_tables: false,
            needs_flushes: false,
            needs_keys: false,
            needs_rmap: false,
            needs_roots: false,
            needs_shadows: false,
            needs_pins: false,
        }
    }

    /// A clause that needs the tables.
    pub const fn tables(name: &'static str) -> Self {
        Self { needs_tables: true, ..Self::exits(name) }
    }

    /// A clause that needs the tables and the flushes.
    pub const fn flushes(name: &'static str) -> Self {
        Self { needs_flushes: true, ..Self::tables(name) }
    }

    /// A clause that needs the keys.
    pub const fn keys(name: &'static str) -> Self {
        Self { needs_keys: true, ..Self::exits(name) }
    }

    /// A clause that needs the rmap and the tables.
    pub const fn rmap(name: &'static str) -> Self {
        Self { needs_keys: true, needs_rmap: true, ..Self::tables(name) }
    }

    /// A clause that needs the roots and what hangs from them.
    pub const fn roots(name: &'static str) -> Self {
        Self { needs_roots: true, ..Self::keys(name) }
    }

    /// A clause about a guest's tables that are shadowed.
    pub const fn shadows(name: &'static str) -> Self {
        Self { needs_shadows: true, ..Self::exits(name) }
    }

    /// A clause about pages that are held.
    pub const fn pins(name: &'static str) -> Self {
        Self { needs_pins: true, ..Self::exits(name) }
    }

    /// Whether a target with these capabilities can be judged by it.
    pub const fn can_be_checked(&self, capabilities: Capabilities) -> bool {
        (!self.needs_tables || capabilities.tables)
            && (!self.needs_flushes || capabilities.flushes)
            && (!self.needs_keys || capabilities.keys)
            && (!self.needs_rmap || capabilities.rmap)
            && (!self.needs_roots || capabilities.roots)
            && (!self.needs_shadows || capabilities.shadows)
            && (!self.needs_pins || capabilities.pins)
    }
}

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
    /// Which clause: an index into [`Oracle::clauses`].
    pub clause: usize,
    /// The address it is about, if it is about one.
    pub blame: Option<Blame>,
    /// What was found and what would have been right.
    pub why: String,
}

/// One law.
pub trait Oracle {
    /// Its name.
    fn name(&self) -> &'static str;

    /// The clauses of the law.
    fn clauses(&self) -> &'static [Clause];

    /// A new program begins.
    fn reset(&mut self) {}

    /// Judge one op. `tally` has one place for each clause.
    ///
    /// # Errors
    /// An [`Objection`] if the law is broken.
    fn check(&mut self, step: &Step<'_>, tally: &mut [Tally]) -> Result<(), Objection>;

    /// Judge what is left at the end of a program.
    ///
    /// # Errors
    /// An [`Objection`] if the law is broken.
    fn finish(&mut self, _end: &End<'_>, _tally: &mut [Tally]) -> Result<(), Objection> {
        Ok(())
    }
}

/// What makes two findings the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Signature {
    /// The oracle that objected, or `panic`.
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
