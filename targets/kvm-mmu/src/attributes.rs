//! Memory attributes by gfn: whether a frame is private. A large leaf has frames of one kind only.
//!
//! While they change nothing maps the frames, and no large leaf that some of them belong to is made for others: it would be there
//! when they have changed (`kvm_arch_pre_set_memory_attributes()`).

use crate::flush::{FlushOwed, TlbFlush};
use crate::gfn_ranges::GfnRanges;
use crate::policy::{HasPolicy, Policy};
use crate::second_stage::SecondStage;
use crate::spte::Format;
use gpa_model::{Gfn, Level};

/// A change that has begun and not ended.
#[derive(Clone, Copy, Debug)]
struct Change {
    first: Gfn,
    pages: u64,
    private: bool,
}

/// Which gfns are private, and which are changing.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    private: GfnRanges,
    change: Option<Change>,
}

impl Attributes {
    pub(crate) fn clear(&mut self) {
        self.private.clear();
        self.change = None;
    }

    /// Whether `gfn` is private (`kvm_mem_is_private()`).
    pub(crate) fn is_internal(&self, gfn: Gfn) -> bool {
        self.private.contains(gfn)
    }

    /// Whether the attributes of any of `pages` gfns from `first` are changing.
    pub(crate) fn is_changing(&self, first: Gfn, pages: u64) -> bool {
        self.change.is_some_and(|change| change.first < first.add(pages) && first < change.first.add(change.pages))
    }

    /// Whether one leaf of `level` may map `gfn` and its neighbours (`hugepage_has_attrs()`).
    pub(crate) fn are_alike(&self, policy: &(impl Policy + ?Sized), gfn: Gfn, level: Level) -> bool {
        let (leaf, pages) = (gfn.align_down(level.pages()), level.pages());
        let settled = !policy.sees_changing_attributes() || !self.is_changing(leaf, pages);
        settled && !self.private.divides(leaf, pages)
    }
}

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Make `pages` frames from `first` private or shared (`kvm_vm_set_mem_attributes()`). One change at a time, of these or of
    /// memslots; others wait.
    pub fn set_attributes(&self, first: Gfn, pages: u64, private: bool, tlb: &mut dyn TlbFlush) {
        let _slots_lock = self.slots_lock.lock();
        self.attributes_begin(first, pages, private, tlb);
        self.attributes_end();
    }

    /// Nothing maps the frames when this returns, and nothing will until the end.
    pub(crate) fn attributes_begin(&self, first: Gfn, pages: u64, private: bool, tlb: &mut dyn TlbFlush) {
        let mut mmu = self.mmu_lock.lock();
        mmu.attributes.change = Some(Change { first, pages, private });
        let mut owed = FlushOwed::nothing();
        if self.policy().zaps_for_attributes() {
            self.zap_gfns(&mut mmu, first, pages, &mut owed);
        }
        owed.all(self.policy(), tlb);
    }

    /// The frames are what they were to become.
    pub(crate) fn attributes_end(&self) {
        let mut mmu = self.mmu_lock.lock();
        if let Some(Change { first, pages, private }) = mmu.attributes.change.take() {
            mmu.attributes.private.set(first, pages, private);
        }
    }
}
