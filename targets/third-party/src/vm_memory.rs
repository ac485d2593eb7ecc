//! The regions of `vm-memory` as memslots, under whatever tables.

use crate::memslots::Memslots;
use crate::tables::bytes;
use ::vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap};
use gpa_model::{Gfn, Gpa, SlotId};

/// Memslots that are regions of guest memory, each mapped into this process, though nothing is accessed there.
#[derive(Default)]
pub(crate) struct Regions {
    memory: GuestMemoryMmap,
    slots: Vec<(SlotId, GuestAddress)>,
}

fn guest(gfn: Gfn) -> GuestAddress {
    GuestAddress(bytes(gfn.raw()))
}

impl Memslots for Regions {
    fn insert(&mut self, id: SlotId, gfn: Gfn, pages: u64) {
        let (base, size) = (guest(gfn), bytes(pages) as usize);
        let region = GuestRegionMmap::from_range(base, size, None).expect("there is address space");
        self.memory = self.memory.insert_region(region.into()).expect("slots do not overlap");
        self.slots.push((id, base));
    }

    fn remove(&mut self, id: SlotId) {
        let Some(at) = self.slots.iter().position(|slot| slot.0 == id) else { return };
        let (_, base) = self.slots.swap_remove(at);
        let size = self.memory.find_region(base).expect("the region is there").len();
        self.memory = self.memory.remove_region(base, size).expect("the region is there").0;
    }

    fn find(&self, gfn: Gfn) -> Option<(SlotId, u64)> {
        let (region, offset) = self.memory.to_region_addr(guest(gfn))?;
        let (id, _) = self.slots.iter().find(|slot| slot.1 == region.start_addr())?;
        Some((*id, Gpa::new(offset.raw_value()).page()))
    }
}
