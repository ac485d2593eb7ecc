//! What is in flux: what is being taken away, so that a fault on it is retried.

use super::{Model, SlotKind};
use crate::addr::HostPage;
use crate::frame_set::FrameSet;
use crate::host::Host;
use crate::program::HostPageRange;

/// What the invalidations in progress are about, those included that began while another was in progress and have ended since.
///
/// KVM keeps one range for all of them, from the lowest to the highest, and forgets it when none is in progress: of gfns since 6.9
/// (`kvm_mmu_invalidate_range_add()`), of hvas before (`mmu_invalidate_retry_hva()`). What lies between two is retried, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Invalidated {
    frames: FrameSet,
    hvas: Option<HostPageRange>,
}

impl Model {
    /// Whether a fault on `frame` may be retried: its memslot is INVALID (`kvm_faultin_pfn()`), or an invalidation is about it.
    pub(super) fn is_in_flux(&self, host: &Host, frame: usize) -> bool {
        let Invalidated { frames, hvas } = self.invalidated;
        self.slot_kind(frame) == SlotKind::Invalid
            || self.memory_attributes.changing().contains(frame)
            || frames.contains(frame)
            || self
                .hva(frame)
                .is_some_and(|hva| host.invalidating(hva) || hvas.is_some_and(|range| range.contains(hva)))
    }

    /// Whether an invalidation is in progress at all. Where each name of a frame has a memslot of its own, KVM's one range reaches from a
    /// base name to an alias, and so over nearly every name (`kvm_mmu_invalidate_range_add()`).
    pub fn is_anything_in_flux(&self, host: &Host) -> bool {
        host.any_invalidating() || self.memory_attributes.is_changing() || self.zapping.is_some()
    }

    /// The op was about `frames`, and changed what [`Host::changed`] says.
    pub(super) fn note_invalidations(&mut self, host: &Host, frames: FrameSet) {
        let zapping = self.zapping.unwrap_or(FrameSet::EMPTY);
        if !self.is_anything_in_flux(host) {
            self.invalidated = Invalidated::default();
            return;
        }
        let all = self.invalidated.frames.union(frames).union(zapping);
        let hvas = [self.invalidated.hvas, host.changed()].into_iter().flatten().reduce(|one, other| {
            let start = one.start.page().min(other.start.page());
            HostPageRange { start: HostPage::new(start), pages: (one.end().max(other.end()) - start) as u32 }
        });
        self.invalidated = Invalidated { frames: all.hull(), hvas };
    }
}
