//! TLBs: what was walked to, by the tag under which the processor keeps it: an ASID, or the root of EPT. They forget nothing that
//! they are not told to forget.

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

/// Translations of one tag, by level and first frame.
type Tlb = BTreeMap<(u8, u64), Leaf>;

static TLBS: Single<BTreeMap<u64, Tlb>> = Single::new(BTreeMap::new());

const fn first_frame(address: u64, level: u8) -> u64 {
    address >> 12 & !((1 << (9 * (level as u64 - 1))) - 1)
}

/// What `tag` has for an access of `kind` to `address`. A write needs the dirty bit: without it the tables are walked, to set it.
pub(crate) fn look_up(tag: u64, address: u64, kind: Kind, user: bool) -> Option<Leaf> {
    let tlbs = TLBS.borrow();
    let tlb = tlbs.get(&tag)?;
    let found = (1..=3).find_map(|level| tlb.get(&(level, first_frame(address, level))))?;
    let writes = matches!(kind, Kind::Write | Kind::CompareExchange);
    (found.allows(kind, user) && (!writes || found.dirty())).then_some(*found)
}

/// Keep what a walk to `address` has found.
pub(crate) fn insert(tag: u64, address: u64, leaf: Leaf) {
    let mut tlbs = TLBS.borrow();
    let tlb = tlbs.entry(tag).or_default();
    // One translation for an address: a walk replaces what was there.
    for level in (1..=3).filter(|level| *level != leaf.level) {
        tlb.remove(&(level, first_frame(address, level)));
    }
    tlb.insert((leaf.level, first_frame(address, leaf.level)), leaf);
}

/// Forget what `tag` has for `address`: a fault does (APM, volume 2, 5.5.1), and so does INVLPG.
pub(crate) fn remove(tag: u64, address: u64) {
    if let Some(tlb) = TLBS.borrow().get_mut(&tag) {
        for level in 1..=3 {
            tlb.remove(&(level, first_frame(address, level)));
        }
    }
}

/// Forget all of `tag`.
pub(crate) fn drop_tag(tag: u64) {
    TLBS.borrow().remove(&tag);
}

/// Forget everything.
pub(crate) fn drop_all() {
    TLBS.borrow().clear();
}

/// Forget what any tag has for one of `pages` frames from `gfn` on.
pub(crate) fn drop_range(gfn: u64, pages: u64) {
    for tlb in TLBS.borrow().values_mut() {
        tlb.retain(|(level, first), _| {
            let frames = 1 << (9 * (u64::from(*level) - 1));
            first + frames <= gfn || gfn.saturating_add(pages) <= *first
        });
    }
}

/// What `tag` has.
pub(crate) fn cached(tag: u64) -> Vec<Cached> {
    let tlbs = TLBS.borrow();
    let entries = tlbs.get(&tag).into_iter().flatten();
    entries.map(|((_, gfn), leaf)| Cached { gfn: *gfn, leaf: *leaf }).collect()
}
