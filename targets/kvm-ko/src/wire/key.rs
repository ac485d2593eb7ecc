//! How a [`GfnIndexed`] is written: a number for its kind, the gfn, another word, a level and a byte of flags.

use gpa_model::{Alias, GfnIndexed, Gpa, Level, Pfn, Rights, StolenMask};

/// What a key is made of on the wire.
pub(super) struct Parts {
    pub(super) kind: u8,
    pub(super) gfn: u64,
    pub(super) word: u64,
    pub(super) level: u8,
    pub(super) flags: u8,
}

const DIRECT: u8 = 1 << 3;
const GUEST_MODE: u8 = 1 << 4;

pub(super) fn encode(key: &GfnIndexed) -> Parts {
    let parts = |kind, gfn, word, level, flags: u8| Parts { kind, gfn, word, level, flags };
    match *key {
        GfnIndexed::Rmap { gfn, gpa, level, idle } => parts(0, gfn, gpa.raw(), level as u8, idle.into()),
        GfnIndexed::ShadowPage { gfn, alias, level, direct, access, guest_mode } => {
            let bit = |set: bool, bit| if set { bit } else { 0 };
            parts(1, gfn, alias.raw(), level, access.bits() | bit(direct, DIRECT) | bit(guest_mode, GUEST_MODE))
        }
        GfnIndexed::ShadowRmap { gfn, spte } => parts(2, gfn, spte, 0, 0),
        GfnIndexed::ShadowLeaf { gfn, spte } => parts(3, gfn, spte, 0, 0),
        GfnIndexed::NxSplit { gfn, alias, level } => parts(4, gfn, alias.raw(), level, 0),
        GfnIndexed::Table { gfn, alias, level, reached } => parts(5, gfn, alias.raw(), level, reached.into()),
        GfnIndexed::Retired { gfn, pfn, level } => parts(6, gfn, pfn.raw().into(), level as u8, 0),
        GfnIndexed::DirtyLog(gfn) => parts(7, gfn, 0, 0, 0),
        GfnIndexed::Mmio(gfn) => parts(8, gfn, 0, 0, 0),
        GfnIndexed::AsyncPf(gfn) => parts(9, gfn, 0, 0, 0),
    }
}

/// The inverse, in a VM with these stolen bits; `None` if there is no such key.
pub(super) fn decode(parts: &Parts, stolen: StolenMask) -> Option<GfnIndexed> {
    let Parts { kind, gfn, word, level: number, flags } = *parts;
    let level = || Level::ALL.get(usize::from(number)).copied();
    let alias = || -> Alias { stolen.split(Gpa::from_page(word)).1 };
    Some(match kind {
        0 => GfnIndexed::Rmap { gfn, gpa: Gpa::new(word), level: level()?, idle: flags != 0 },
        1 => GfnIndexed::ShadowPage {
            gfn,
            alias: alias(),
            level: number,
            direct: flags & DIRECT != 0,
            access: Rights::from_bits(flags),
            guest_mode: flags & GUEST_MODE != 0,
        },
        2 => GfnIndexed::ShadowRmap { gfn, spte: word },
        3 => GfnIndexed::ShadowLeaf { gfn, spte: word },
        4 => GfnIndexed::NxSplit { gfn, alias: alias(), level: number },
        5 => GfnIndexed::Table { gfn, alias: alias(), level: number, reached: flags != 0 },
        6 => GfnIndexed::Retired { gfn, pfn: Pfn::new(u32::try_from(word).ok()?), level: level()? },
        7 => GfnIndexed::DirtyLog(gfn),
        8 => GfnIndexed::Mmio(gfn),
        9 => GfnIndexed::AsyncPf(gfn),
        _ => return None,
    })
}
