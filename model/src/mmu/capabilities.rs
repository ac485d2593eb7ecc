//! What a target can show of itself.

#[cfg(doc)]
use super::{FlushBackend, Mmu};
#[cfg(doc)]
use crate::host::Host;

/// What of itself a target can show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// [`Mmu::walk`] finds what is mapped.
    pub tables: bool,
    /// Flushes go through the [`FlushBackend`].
    pub flushes: bool,
    /// [`Mmu::inspect`] reports keys.
    pub keys: bool,
    /// An rmap is among them.
    pub rmap: bool,
    /// So are roots that come and go, with all that hangs from them.
    pub roots: bool,
    /// It shadows the guest's tables, and [`Mmu::warning`] tells of what it warned of.
    pub shadows: bool,
    /// It holds each page from its look-up until it is mapped, by [`Host::pins`].
    pub pins: bool,
    /// The tables are known at each flush and at each free ([`FlushBackend::tables`](super::FlushBackend::tables)).
    pub order: bool,
    /// It refuses to map a page ahead of its use when the request names an alias, as Linux does (8046d29dde17). Declared, because a
    /// design without such a rule must map the page.
    pub refuses_aliased_prefault: bool,
    /// It tells the names of a frame apart itself. A runner that makes a memslot for each name decides where there are aliases, so
    /// their absence says nothing about the MMU.
    pub own_aliases: bool,
    /// Which bits of an alias number the address has that user space is told on an exit: all of them, unless a runner makes aliases
    /// where the second stage does not see them.
    pub told_alias_bits: u8,
    /// Guest accesses really go through the MMU under test. Where that was not proven, right answers count for nothing.
    pub native: bool,
}

impl Capabilities {
    /// How ops end, and nothing else.
    pub const EXITS: Capabilities = Capabilities {
        tables: false,
        flushes: false,
        keys: false,
        rmap: false,
        roots: false,
        shadows: false,
        pins: false,
        order: false,
        refuses_aliased_prefault: false,
        own_aliases: true,
        told_alias_bits: u8::MAX,
        native: true,
    };
}
