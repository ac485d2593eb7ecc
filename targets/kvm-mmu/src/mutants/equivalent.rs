//! Mutants of the catalogue that break no law, with the reason for each.

/// A mutant of the catalogue that no guest and no user space can tell from the corrected design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Equivalent {
    /// Its name in the catalogue.
    pub name: &'static str,
    /// What it changes, and why that breaks no law.
    pub why: &'static str,
}

/// The equivalent mutants. `tests/equivalent.rs` runs each as a policy; no oracle objects.
pub const EQUIVALENT: &[Equivalent] = &[
    Equivalent {
        name: "M12-hweight-ge1",
        why: "with one stolen bit everything is flushed instead of two ranges: a TLB that holds less is never wrong",
    },
    Equivalent {
        name: "M17-end-as-count",
        why: "the gfn after the last is taken for the number of pages: that is more than asked for, and a TLB that holds less is \
              never wrong",
    },
    Equivalent {
        name: "M18-xor-instead-of-or",
        why: "the alias of the range is made by XOR: what is flushed is a gfn, which has no stolen bits, and there XOR is OR",
    },
    Equivalent {
        name: "M25-reuse-without-tag-check",
        why: "what an entry of a shadowed table leads to is reused whatever its alias: a table of the guest has none, and legal \
              stolen bits lie above the tables that hold leaves",
    },
    Equivalent {
        name: "M32-prefetch-blocks-base",
        why: "private slots are not prefetched under the base name either: the page is mapped when it is accessed",
    },
    Equivalent {
        name: "M33-prefetch-blocks-user",
        why: "nothing is prefetched under an alias: the page is mapped when it is accessed",
    },
    Equivalent {
        name: "M34-prefetch-gfn-aliased",
        why: "a neighbour's slot is looked up with the stolen bits: no slot has them, so nothing is prefetched, as in M33",
    },
    Equivalent {
        name: "M51-noslot-fallthrough",
        why: "an alias of a hole goes the way of its base name: that finds no slot either, and ends in the same exit",
    },
    Equivalent {
        name: "M53-return-handled",
        why: "no MMIO entry is made: the next access faults again and ends in the same exit",
    },
    Equivalent {
        name: "M75-sync-nostrip",
        why: "catching up with a table of the guest, an aliased entry looks changed: it is dropped, and made again by the next access",
    },
    Equivalent {
        name: "M77-warn-removed",
        why: "nothing is warned of: the warnings that are right tell of a stolen bit in a frame number, which there never is",
    },
    Equivalent {
        name: "B14-zap-any-gfn",
        why: "with a memslot go all shadow pages whose gfn is in it, those of the direct kind too (58a20a9435aa): what they map is \
              mapped again by the next access",
    },
];
