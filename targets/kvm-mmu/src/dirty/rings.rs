//! Dirty rings (`dirty_ring.c`): each vCPU lists the pages that it makes dirty; user space harvests the entries, and
//! resets them when it has copied the pages.
//!
//! An entry names a memslot and a page in it, without stolen bits. It stays in use until a reset, and the reset makes
//! the next write to its page be noticed. So every page that can be written unnoticed is in some ring. An entry is
//! never dropped for lack of room: a vCPU does not enter the guest while its ring is nearly full.

use crate::host::TlbFlush;
use crate::memslots::dirty_ring::DirtyGfn;
use crate::policy::{HasPolicy, Mistake, Policy};
use crate::second_stage::SecondStage;
use crate::second_stage::flush::FlushOwed;
use crate::tables::spte::Format;

/// A run of adjacent pages of one memslot whose entries follow each other.
#[derive(Clone, Copy)]
struct Run {
    first: DirtyGfn,
    pages: u64,
}

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Whether `vcpu` has to stay out of the guest until user space resets entries of its ring
    /// (`kvm_dirty_ring_check_request()`).
    pub fn is_dirty_ring_full(&self, vcpu: u8) -> bool {
        let full = |size| self.rings[usize::from(vcpu)].lock().is_full(size);
        !self.plants(Mistake::RingOverruns) && self.vm.dirty_ring().is_some_and(full)
    }

    /// Passes the new entries of `vcpu`'s ring to `take`. Their pages stay writable until the rings are reset.
    pub fn harvest_dirty_ring(&self, vcpu: u8, take: impl FnMut(DirtyGfn)) {
        let mut ring = self.rings[usize::from(vcpu)].lock();
        ring.pending().for_each(take);
        ring.harvested = ring.dirty;
    }

    /// `KVM_RESET_DIRTY_RINGS`: frees the harvested entries, and makes the next write to each of their pages be
    /// noticed.
    pub fn reset_dirty_rings(&self, tlb: &mut dyn TlbFlush) {
        let slots = self.slots.read();
        let mmu = self.mmu_lock.lock();
        let mut owed = FlushOwed::nothing();
        let mut reset = |run: Run| {
            // By now the memslot may be gone, or its id may name another one (`kvm_reset_dirty_gfn()`).
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
        if !self.plants(Mistake::ResetUnflushed) {
            owed.all(self.policy(), tlb);
        }
    }
}
