//! TLBs: what was walked to, by ASID. They forget nothing that they are not told to forget.

use super::access::Kind;
use super::walk::Leaf;
use crate::single::Single;
use std::collections::BTreeMap;

/// A translation that is cached, and the first frame that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cached {
    /// The first frame.
    pub(crate) gfn: u64,
    /// The leaf, as it was.
    pub(crate) leaf: Leaf,
}

/// Translations of one ASID, by level and first frame.
type Tlb = BTreeMap<(u8, u64), Leaf>;

static TLBS: Single<BTreeMap<u32, Tlb>> = Single::new(BTreeMap::new());

const fn first_frame(address: u64, level: u8) -> u64 {
    address >> 12 & !((1 << (9 * (level as u64 - 1))) - 1)
}

/// What `asid` has for an access of `kind` to `address`. A write needs the dirty bit: without it the tables are walked, to set it.
pub(crate) fn look_up(asid: u32, address: u64, kind: Kind, user: bool) -> Option<Leaf> {
    let tlbs = TLBS.borrow();
    let tlb = tlbs.get(&asid)?;
    let found = (1..=3).find_map(|level| tlb.get(&(level, first_frame(address, level))))?;
    let writes = matches!(kind, Kind::Write | Kind::CompareExchange);
    (found.allows(kind, user) && (!writes || found.dirty())).then_some(*found)
}

/// Keep what a walk to `address` has found.
pub(crate) fn insert(asid: u32, address: u64, leaf: Leaf) {
    let mut tlbs = TLBS.borrow();
    let tlb = tlbs.entry(asid).or_default();
    // One translation for an address: a walk replaces what was there.
    for level in (1..=3).filter(|level| *level != leaf.level) {
        tlb.remove(&(level, first_frame(address, level)));
    }
    tlb.insert((leaf.level, first_frame(address, leaf.level)), leaf);
}

/// Forget what `asid` has for `address`: a fault does (APM, volume 2, 5.5.1), and so does INVLPG.
pub(crate) fn remove(asid: u32, address: u64) {
    if let Some(tlb) = TLBS.borrow().get_mut(&asid) {
        for level in 1..=3 {
            tlb.remove(&(level, first_frame(address, level)));
        }
    }
}

/// Forget all of `asid`.
pub(crate) fn drop_asid(asid: u32) {
    TLBS.borrow().remove(&asid);
}

/// Forget everything.
pub(crate) fn drop_all() {
    TLBS.borrow().clear();
}

/// Forget what any ASID has for one of `pages` frames from `gfn` on.
pub(crate) fn drop_range(gfn: u64, pages: u64) {
    for tlb in TLBS.borrow().values_mut() {
        tlb.retain(|(level, first), _| {
            let frames = 1 << (9 * (u64::from(*level) - 1));
            first + frames <= gfn || gfn.saturating_add(pages) <= *first
        });
    }
}

/// What `asid` has.
pub(crate) fn cached(asid: u32) -> Vec<Cached> {
    let tlbs = TLBS.borrow();
    let entries = tlbs.get(&asid).into_iter().flatten();
    entries.map(|((_, gfn), leaf)| Cached { gfn: *gfn, leaf: *leaf }).collect()
}
