//! A clause of a law: what a target must show for it to be checked, and how often it was at stake.

use gpa_model::Capabilities;

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
    /// Whether it needs [`Capabilities::order`].
    pub needs_order: bool,
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
            needs_order: false,
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

    /// A clause that needs the tables at each flush.
    pub const fn order(name: &'static str) -> Self {
        Self { needs_order: true, ..Self::flushes(name) }
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

    /// A clause about translations of guest virtual addresses, and the flushes that they need.
    pub const fn shadow_flushes(name: &'static str) -> Self {
        Self { needs_shadows: true, ..Self::flushes(name) }
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
            && (!self.needs_order || capabilities.order)
    }
}
