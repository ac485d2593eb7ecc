//! Dirty rings: each vCPU lists the pages that it makes dirty, user space takes the entries and, when it has dealt with the
//! pages, gives the entries back (`dirty_ring.c`).
//!
//! An entry names a memslot and a page in it, never a stolen bit. It stays taken until the rings are reset, which expects writes
//! to its page anew; so a page that can be written unnoticed is in some ring. Entries are never dropped for want of room: a vCPU
//! whose ring is nearly full does not enter the guest.

use crate::host::TlbFlush;
use crate::memslots::dirty_ring::DirtyGfn;
use crate::policy::{HasPolicy, Policy};
use crate::second_stage::SecondStage;
use crate::second_stage::flush::FlushOwed;
use crate::tables::spte::Format;

/// Pages of one memslot that lie side by side and were listed one after the other.
#[derive(Clone, Copy)]
struct Run {
    first: DirtyGfn,
    pages: u64,
}

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Whether `vcpu` must not enter the guest before user space has given back entries of its ring
    /// (`kvm_dirty_ring_check_request()`).
    pub fn is_dirty_ring_full(&self, vcpu: u8) -> bool {
        let full = |size| self.rings[usize::from(vcpu)].lock().is_full(size);
        self.policy().stops_when_full() && self.vm.dirty_ring().is_some_and(full)
    }

    /// Take the entries of `vcpu`'s ring. They stay taken, and their pages writable, until the rings are reset.
    pub fn harvest_dirty_ring(&self, vcpu: u8, take: impl FnMut(DirtyGfn)) {
        let mut ring = self.rings[usize::from(vcpu)].lock();
        ring.pending().for_each(take);
        ring.harvested = ring.dirty;
    }

    /// `KVM_RESET_DIRTY_RINGS`: give back the entries that were harvested, and expect writes to their pages again.
    pub fn reset_dirty_rings(&self, tlb: &mut dyn TlbFlush) {
        let slots = self.slots.read();
        let mmu = self.mmu_lock.lock();
        let mut owed = FlushOwed::nothing();
        let mut reset = |run: Run| {
            // The memslot may be gone, and another may have its number (`kvm_reset_dirty_gfn()`).
            let slot = slots.get(run.first.slot).filter(|slot| run.first.offset < slot.pages);
            if let Some(slot) = slot {
                let pages = run.pages.min(slot.pages - run.first.offset);
                self.expect_writes(&mmu, slot.gfn.add(run.first.offset), pages, &mut owed);
            }
        };
        for ring in &self.rings {
            let mut ring = ring.lock();
            let mut run: Option<Run> = None;
            for entry in ring.between(ring.reset, ring.harvested) {
                match &mut run {
                    Some(Run { first, pages }) if self.policy().continues_run(*first, *pages, entry) => *pages += 1,
                    _ => run.replace(Run { first: entry, pages: 1 }).into_iter().for_each(&mut reset),
                }
            }
            run.into_iter().for_each(&mut reset);
            ring.reset = ring.harvested;
        }
        if self.policy().flushes_reset() {
            owed.all(self.policy(), tlb);
        }
    }
}
