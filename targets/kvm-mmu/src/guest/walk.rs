//! The software walk of the guest's page tables (`walk_addr_generic()` in `paging_tmpl.h`). Stolen bits are stripped
//! from every address in modes with 64-bit entries, and from none in the others.

use crate::guest::pte::GuestPte;
use crate::memslots::slots::Memslots;
use crate::policy::{HasPolicy, Policy};
use crate::second_stage::SecondStage;
use crate::tables::spte::Format;
use gpa_model::limits::GUEST_LEVELS;
use gpa_model::{Access, Alias, Exit, Fault, Gfn, Gpa, GuestPaging, Gva, Host, Rights, StolenMask};

/// One entry on the path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// The address in it, with its stolen bits.
    pub(crate) pointer: Gpa,
    /// What the entry alone allows.
    pub(crate) own: Rights,
    /// What the entry and all entries above it allow together.
    pub(crate) rights: Rights,
}

/// A walk that reached a leaf.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GuestPath {
    /// The entries, by the level of their table.
    pub(crate) steps: [Step; GUEST_LEVELS + 1],
    /// The level of the leaf's table.
    pub(crate) leaf_level: u8,
    /// What all entries allow together.
    pub(crate) rights: Rights,
    /// The GPA that the path leads to.
    pub(crate) gpa: Gpa,
}

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// The GPA of `gva` by the table at `root`, for a program in user mode.
    pub(crate) fn guest_walk(&self, host: &Host, root: Gpa, gva: Gva, access: Access) -> Result<Gpa, Fault> {
        self.walk_addr(host, &self.slots.read(), root, gva, access).map(|path| path.gpa)
    }

    /// The same, with all entries on the path (`struct guest_walker`).
    pub(crate) fn walk_addr(
        &self,
        host: &Host,
        slots: &Memslots,
        root: Gpa,
        gva: Gva,
        access: Access,
    ) -> Result<GuestPath, Fault> {
        let (paging, stolen) = (self.vm.paging(), self.vm.stolen());
        let step = Step { pointer: root, own: Rights::RWX, rights: Rights::RWX };
        let mut path = GuestPath { steps: [step; GUEST_LEVELS + 1], leaf_level: 1, rights: Rights::RWX, gpa: root };
        let reserved = self.guest_reserved(paging);
        let mut rights = Rights::RWX;
        let mut table = self.policy().table_gfn(stolen, paging, GuestPte::of_root(paging, root));
        let mut level = self.policy().walk_levels(paging);
        loop {
            // A table that cannot be read gives the guest the page fault of a non-present entry.
            let entry = self.read_guest_pte(host, slots, table, gva.index(level), level).ok_or(Fault::NotPresent)?;
            if !entry.is_present() {
                return Err(Fault::NotPresent);
            }
            if entry.is_reserved(reserved) {
                return Err(Fault::Reserved);
            }
            rights = rights.intersect(entry.rights());
            path.steps[usize::from(level)] = Step { pointer: entry.address(), own: entry.rights(), rights };
            if entry.is_leaf() {
                let leaf = address_of(self.policy().leaf_gfn(stolen, paging, entry.address()));
                if entry.is_unaligned(leaf) {
                    return Err(Fault::Reserved);
                }
                if !rights.contains(Rights::needed(access)) {
                    return Err(Fault::Protection);
                }
                let gpa = leaf.align_down(paging.pages(level)).add_pages(gva.offset(paging, level));
                return Ok(GuestPath { gpa, leaf_level: level, rights, ..path });
            }
            table = self.policy().table_gfn(stolen, paging, entry.address());
            level -= 1;
        }
    }

    /// The address bits that must be clear in the guest's entries. A guest that does not know of stolen bits may set
    /// none of them.
    pub(crate) fn guest_reserved(&self, paging: GuestPaging) -> u64 {
        let maxphyaddr = self.vm.maxphyaddr();
        if paging.strips_stolen_bits() {
            self.policy().reserved_gpa_bits(self.vm.stolen(), maxphyaddr)
        } else {
            StolenMask::NONE.reserved_gpa_bits(maxphyaddr)
        }
    }

    /// Entry `index` of the table of `level` at `gfn`, or `None` if there is no memory.
    pub(crate) fn read_guest_pte(
        &self,
        host: &Host,
        slots: &Memslots,
        gfn: Gfn,
        index: u8,
        level: u8,
    ) -> Option<GuestPte> {
        let slot = slots.find(gfn).filter(|slot| !slot.invalid)?;
        let paging = self.vm.paging();
        let gpte = host.gpte(slot.hva_of(gfn)?, index);
        Some(GuestPte::new(gpte.raw(paging), paging, level))
    }

    /// Follows one table pointer and one leaf of long mode, given as they stand in the guest's tables.
    pub(crate) fn translate(&self, table: Gpa, leaf: Gpa) -> Exit {
        let (stolen, paging) = (self.vm.stolen(), GuestPaging::FourLevel);
        if (table.raw() | leaf.raw()) & self.guest_reserved(paging) != 0 {
            return Exit::GuestFault(Fault::Reserved);
        }
        match self.slots.read().find(self.policy().table_gfn(stolen, paging, table)) {
            Some(slot) if !slot.invalid => Exit::Translated(address_of(self.policy().leaf_gfn(stolen, paging, leaf))),
            _ => Exit::GuestFault(Fault::NotPresent),
        }
    }
}

/// Joined without a mask, so that stolen bits left in the gfn by a policy show in the result.
fn address_of(gfn: Gfn) -> Gpa {
    StolenMask::NONE.join(gfn, Alias::NONE)
}
