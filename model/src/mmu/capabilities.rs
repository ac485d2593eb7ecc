//! What a target can show of itself.

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
        native: true,
    };
}
