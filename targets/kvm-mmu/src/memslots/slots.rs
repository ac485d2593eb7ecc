//! Memslots: which gfns are memory, which hvas back them, and the dirty log of each.

use crate::memslots::page_set::PageSet;
use gpa_model::{Gfn, HostPage, HostPageRange, Level, SlotChange, SlotFlags, SlotId, StolenMask};
use std::fmt;

/// One memslot.
#[derive(Debug)]
pub(crate) struct Memslot {
    pub(crate) id: SlotId,
    pub(crate) gfn: Gfn,
    pub(crate) pages: u64,
    pub(crate) hva: HostPage,
    pub(crate) flags: SlotFlags,
    /// Being deleted or moved (`KVM_MEMSLOT_INVALID`): existing SPTEs are going, and faults retry.
    pub(crate) invalid: bool,
    /// The pages written since the log was cleared. Empty without logging.
    pub(crate) dirty: PageSet,
    /// The pages whose writes are tracked.
    pub(crate) tracked: PageSet,
    /// The pages that are shadowed as guest tables, and those of them that are tables above the lowest level. Writes to
    /// the latter are emulated; the others may become unsync.
    pub(crate) tables: PageSet,
    pub(crate) upper_tables: PageSet,
}

impl Memslot {
    pub(crate) fn new(id: SlotId, gfn: Gfn, pages: u64, hva: HostPage, flags: SlotFlags) -> Self {
        let [dirty, tracked, tables, upper_tables] = std::array::from_fn(|_| PageSet::default());
        Self { id, gfn, pages, hva, flags, invalid: false, dirty, tracked, tables, upper_tables }
    }

    /// Sets flags, and empties the log.
    pub(crate) fn set_flags(&mut self, flags: SlotFlags) {
        self.flags = flags;
        self.dirty = PageSet::default();
    }

    pub(crate) fn contains(&self, gfn: Gfn) -> bool {
        gfn.offset_from(self.gfn).is_some_and(|offset| offset < self.pages)
    }

    fn overlaps(&self, gfn: Gfn, pages: u64) -> bool {
        gfn < self.gfn.add(self.pages) && self.gfn < gfn.add(pages)
    }

    /// Whether a leaf of `level` that covers `gfn` covers pages of this memslot only.
    pub(crate) fn holds_leaf(&self, gfn: Gfn, level: Level) -> bool {
        let first = gfn.align_down(level.pages());
        first.offset_from(self.gfn).is_some_and(|offset| offset + level.pages() <= self.pages)
    }

    /// Whether gfns and hvas have the same offset in a large page of `level`. Otherwise no page table can map them
    /// large.
    pub(crate) fn is_congruent(&self, level: Level) -> bool {
        let (gfn, hva) = (self.gfn, self.hva.page());
        gfn.offset_from(gfn.align_down(level.pages())) == Some(hva - self.hva.align_down(level.pages()).page())
    }

    /// Whether writes to any page of the leaf of `level` that covers `gfn` are tracked.
    pub(crate) fn tracks_in_leaf(&self, gfn: Gfn, level: Level) -> bool {
        gfn.align_down(level.pages())
            .offset_from(self.gfn)
            .is_some_and(|page| [&self.tracked, &self.tables].iter().any(|set| set.touches(page, level.pages())))
    }

    pub(crate) fn hva_of(&self, gfn: Gfn) -> Option<HostPage> {
        gfn.offset_from(self.gfn).filter(|&offset| offset < self.pages).map(|offset| self.hva.add(offset))
    }

    /// The gfns of this memslot that `range` backs, as the first gfn and a number of pages.
    pub(crate) fn gfns_of(&self, range: HostPageRange) -> Option<(Gfn, u64)> {
        let start = self.hva.page();
        let (low, high) = (range.start.page().max(start), range.end().min(start + self.pages));
        (low < high).then(|| (self.gfn.add(low - start), high - low))
    }
}

/// Why there cannot be such a memslot or such a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotError {
    /// It has no pages.
    Empty,
    /// Its gfns carry a stolen bit. No access could reach it, and it would shadow the memslot at the gfns without that
    /// bit.
    Aliased(Gfn),
    /// The id is in use.
    Exists(SlotId),
    /// There is no memslot with this id.
    Missing(SlotId),
    /// Another memslot has some of its gfns.
    Overlaps(SlotId),
}

impl fmt::Display for SlotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "a memslot has at least one page"),
            Self::Aliased(gfn) => write!(f, "gfn {gfn} carries a stolen bit; a memslot is created at the gfn without"),
            Self::Exists(id) => write!(f, "memslot {id} exists; delete it first"),
            Self::Missing(id) => write!(f, "there is no memslot {id}"),
            Self::Overlaps(id) => write!(f, "memslot {id} has some of these gfns"),
        }
    }
}

impl std::error::Error for SlotError {}

/// All memslots of a VM.
#[derive(Debug)]
pub(crate) struct Memslots {
    slots: Vec<Memslot>,
    generation: u64,
    in_flux: bool,
}

/// The number of generations before the counter wraps. It is small so that the wrap is tested; KVM has 2^19 and starts
/// near the end for the same reason.
const GENERATIONS: u64 = 64;
/// The first generation.
const FIRST_GENERATION: u64 = GENERATIONS - 12;

impl Memslots {
    pub(crate) fn new() -> Self {
        Self { slots: Vec::new(), generation: FIRST_GENERATION, in_flux: false }
    }

    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.generation = FIRST_GENERATION;
        self.in_flux = false;
    }

    /// Checks a change to memslot `id` (`kvm_arch_prepare_memory_region()` and the checks before it). Its gfns must
    /// carry no bit of `stolen`.
    pub(crate) fn check(&self, stolen: StolenMask, id: SlotId, change: SlotChange) -> Result<(), SlotError> {
        let slot = self.get(id);
        let (gfn, pages) = match (change, slot) {
            (SlotChange::Create { .. }, Some(_)) => return Err(SlotError::Exists(id)),
            (SlotChange::Create { gfn, pages, .. }, None) => (gfn, u64::from(pages)),
            (_, None) => return Err(SlotError::Missing(id)),
            (SlotChange::Move { gfn }, Some(slot)) => (gfn, slot.pages),
            (SlotChange::Delete | SlotChange::Flags(_), Some(_)) => return Ok(()),
        };
        if pages == 0 {
            return Err(SlotError::Empty);
        }
        // A range that begins and ends below the lowest stolen bit carries none in between.
        if stolen.taints(gfn.raw()) || stolen.taints(gfn.add(pages - 1).raw()) {
            return Err(SlotError::Aliased(gfn));
        }
        let mut others = self.slots.iter().filter(|other| other.id != id);
        match others.find(|other| other.overlaps(gfn, pages)) {
            Some(other) => Err(SlotError::Overlaps(other.id)),
            None => Ok(()),
        }
    }

    /// A number that changes with every memslot change. A look-up under an older number is out of date.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether a change has begun and not ended.
    pub(crate) fn in_flux(&self) -> bool {
        self.in_flux
    }

    /// Counts the beginning or the end of a change. Returns true if the counter wrapped: old numbers may now look
    /// current.
    #[must_use = "what carries a generation must go when generations begin anew"]
    pub(crate) fn next_generation(&mut self, in_flux: bool) -> bool {
        self.in_flux = in_flux;
        self.generation = (self.generation + 1) % GENERATIONS;
        self.generation == 0
    }

    /// The memslot that contains `gfn` (`gfn_to_memslot()`).
    pub(crate) fn find(&self, gfn: Gfn) -> Option<&Memslot> {
        self.slots.iter().find(|slot| slot.contains(gfn))
    }

    pub(crate) fn get(&self, id: SlotId) -> Option<&Memslot> {
        self.slots.iter().find(|slot| slot.id == id)
    }

    pub(crate) fn get_mut(&mut self, id: SlotId) -> Option<&mut Memslot> {
        self.slots.iter_mut().find(|slot| slot.id == id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Memslot> {
        self.slots.iter()
    }

    pub(crate) fn insert(&mut self, slot: Memslot) {
        self.slots.push(slot);
    }

    pub(crate) fn remove(&mut self, id: SlotId) {
        self.slots.retain(|slot| slot.id != id);
    }
}
