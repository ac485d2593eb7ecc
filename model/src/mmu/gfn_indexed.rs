//! What a target keeps by gfn, beside its tables.

use crate::addr::{Alias, Gpa, Level, Pfn};
use crate::program::Rights;

/// Something a target keeps by gfn. Frame numbers are given as the target holds them, right or wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GfnIndexed {
    /// The reverse map lists a leaf.
    Rmap {
        /// The key it is listed under: the first frame that it translates.
        gfn: u64,
        /// The first address that it translates.
        gpa: Gpa,
        /// How much it translates.
        level: Level,
        /// Whether it is there but grants nothing: where the processor sets no accessed bit, ageing takes the rights away
        /// until the next fault gives them back.
        idle: bool,
    },
    /// A shadow page.
    ShadowPage {
        /// The frame it begins with.
        gfn: u64,
        /// The alias it is for.
        alias: Alias,
        /// Its level, 1 for a table of leaves.
        level: u8,
        /// Whether it translates frames that follow one another, and is not made of a table of the guest.
        direct: bool,
        /// What the guest's tables above allow.
        access: Rights,
        /// Whether it is for a guest of the guest.
        guest_mode: bool,
    },
    /// The reverse map lists a leaf that no GPA leads to: one of a shadow of the guest's tables, or one whose table is not linked
    /// right now.
    ShadowRmap {
        /// The key it is listed under.
        gfn: u64,
        /// A number for the leaf.
        spte: u64,
    },
    /// There is such a leaf.
    ShadowLeaf {
        /// The frame it is for.
        gfn: u64,
        /// A number for the leaf.
        spte: u64,
    },
    /// A shadow page on the list of those that recovery takes away (`possible_nx_huge_pages`).
    NxSplit {
        /// The frame it begins with.
        gfn: u64,
        /// The alias it is for.
        alias: Alias,
        /// Its level.
        level: u8,
    },
    /// A table page that is in use, where each hangs from a root.
    Table {
        /// The frame it begins with.
        gfn: u64,
        /// The alias it is for.
        alias: Alias,
        /// Its level.
        level: u8,
        /// Whether a root leads to it: one that vCPUs load, or one that waits to be taken apart.
        reached: bool,
    },
    /// A leaf that hangs from a root which waits to be taken apart. No vCPU comes by it, but the host still has to be told of what
    /// becomes of its page.
    Retired {
        /// The first frame that it translates.
        gfn: u64,
        /// The page of it.
        pfn: Pfn,
        /// How much it translates.
        level: Level,
    },
    /// The absolute frame of a bit in a dirty log.
    DirtyLog(u64),
    /// The frame that an MMIO entry remembers.
    Mmio(u64),
    /// A frame that a vCPU waits for while it is read in.
    AsyncPf(u64),
}

impl GfnIndexed {
    /// A shadow page of the direct kind, on whose way the guest forbids nothing: where its tables are not shadowed, all are.
    pub const fn direct_page(gfn: u64, alias: Alias, level: u8) -> Self {
        Self::ShadowPage { gfn, alias, level, direct: true, access: Rights::RWX, guest_mode: false }
    }

    /// The frame number used as key.
    pub const fn raw(self) -> u64 {
        match self {
            GfnIndexed::Rmap { gfn: raw, .. } | GfnIndexed::ShadowPage { gfn: raw, .. } => raw,
            GfnIndexed::NxSplit { gfn: raw, .. }
            | GfnIndexed::Table { gfn: raw, .. }
            | GfnIndexed::Retired { gfn: raw, .. } => raw,
            GfnIndexed::ShadowRmap { gfn: raw, .. } | GfnIndexed::ShadowLeaf { gfn: raw, .. } => raw,
            GfnIndexed::DirtyLog(raw) | GfnIndexed::Mmio(raw) | GfnIndexed::AsyncPf(raw) => raw,
        }
    }

    /// The name of the table.
    pub const fn table(self) -> &'static str {
        match self {
            GfnIndexed::Rmap { .. } | GfnIndexed::ShadowRmap { .. } => "rmap",
            GfnIndexed::ShadowLeaf { .. } => "leaf of a shadow page",
            GfnIndexed::ShadowPage { .. } => "shadow page",
            GfnIndexed::NxSplit { .. } => "list of pages to recover",
            GfnIndexed::Table { .. } => "table page",
            GfnIndexed::Retired { .. } => "leaf of a retired root",
            GfnIndexed::DirtyLog(_) => "dirty log",
            GfnIndexed::Mmio(_) => "MMIO entry",
            GfnIndexed::AsyncPf(_) => "list of pages that a vCPU waits for",
        }
    }
}
