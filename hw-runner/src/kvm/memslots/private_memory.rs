//! Memslots of a software-protected VM. A memslot that is neither logged nor read-only also has a guest_memfd. The memory
//! attributes of a gfn select its page: the guest_memfd's, which only the guest can reach, or the host's.
//!
//! The frames of such a memslot become private by [`Memslots::make_private`], after the guest has touched them as shared ones,
//! and stay private until a program changes that. Frames that a program made private before are private from the start.

use super::{Backing, Memslots, Slot, region};
use crate::error::{Doing, MachineError};
use crate::kvm::alias_method::AliasMethod;
use crate::kvm::guest_memfd::{self, GuestMemfd};
use crate::kvm::ioctl::set_region;
use gpa_model::limits::FRAMES;
use gpa_model::{FrameSet, Gpa, HostPageRange, SlotFlags, SlotId, VmConfig};

impl Memslots {
    /// Whether `slot` has a guest_memfd.
    pub(super) fn has_guest_memfd(&self, slot: &Slot) -> bool {
        self.alias_method == AliasMethod::SwProtected && slot.flags == SlotFlags::default()
    }

    pub(super) fn set_with_guest_memfd(
        &mut self,
        kvm: Backing<'_>,
        id: SlotId,
        slot: &Slot,
    ) -> Result<(), MachineError> {
        let region = region(kvm.vm, self.alias_method, id.index(), 0, slot);
        if !self.has_guest_memfd(slot) {
            return set_region(kvm.fd, kvm.memory, region).doing("set a memslot");
        }
        let memory = match self.guest_memfds[id.index()].take() {
            Some(memory) => memory,
            None => GuestMemfd::new(kvm.fd, region.pages).doing("make a guest_memfd")?,
        };
        set_private(kvm, frames_of(kvm.vm, slot).intersect(self.private), true)?;
        memory.set_region(kvm.fd, kvm.memory, region).doing("set a protected memslot")?;
        self.guest_memfds[id.index()] = Some(memory);
        Ok(())
    }

    /// Makes the frames of memslot `id` private that are to be private.
    pub(crate) fn make_private(&self, kvm: Backing<'_>, id: SlotId) -> Result<(), MachineError> {
        let slot = self.slots[id.index()].filter(|slot| self.has_guest_memfd(slot));
        slot.map_or(Ok(()), |slot| set_private(kvm, frames_of(kvm.vm, &slot).minus(self.shared), true))
    }

    /// Makes `frames`, which are adjacent, private or shared. This takes effect where they have a memslot with
    /// a guest_memfd.
    pub(crate) fn set_attributes(
        &mut self,
        kvm: Backing<'_>,
        frames: FrameSet,
        private: bool,
    ) -> Result<(), MachineError> {
        let (shared, other) = if private { (FrameSet::EMPTY, frames) } else { (frames, FrameSet::EMPTY) };
        self.shared = self.shared.minus(frames).union(shared);
        self.private = self.private.minus(frames).union(other);
        let slots = self.slots.iter().flatten().filter(|slot| self.has_guest_memfd(slot));
        slots.map(|slot| frames_of(kvm.vm, slot).intersect(frames)).try_for_each(|part| set_private(kvm, part, private))
    }

    /// The private frames, each with the host page whose identity it bears; only of memslot `id`, only of pages
    /// in `range`, if given.
    pub(crate) fn private_frames(
        &self,
        vm: &VmConfig,
        id: Option<SlotId>,
        range: Option<HostPageRange>,
    ) -> Vec<(usize, usize)> {
        let mut frames = Vec::new();
        for (at, slot) in self.slots.iter().enumerate() {
            let Some(slot) = slot.filter(|slot| self.has_guest_memfd(slot) && id.is_none_or(|id| id.index() == at))
            else {
                continue;
            };
            let private = frames_of(vm, &slot).minus(self.shared);
            let page = |frame| Some(slot.hva.add(vm.gfn(frame).offset_from(slot.gfn)?));
            let pages = private.iter().filter_map(|frame| Some((frame, page(frame)?)));
            let wanted = pages.filter(|(_, hva)| range.is_none_or(|range| range.contains(*hva)));
            frames.extend(wanted.map(|(frame, hva)| (frame, hva.page() as usize)));
        }
        frames
    }

    /// Whether `frame` is private.
    pub(crate) fn is_private_frame(&self, vm: &VmConfig, frame: usize) -> bool {
        let has = |slot: &Slot| frames_of(vm, slot).minus(self.shared).contains(frame);
        self.slots.iter().flatten().any(|slot| self.has_guest_memfd(slot) && has(slot))
    }

    /// Discards the private pages that stand for host pages in `range`.
    pub(crate) fn discard_private(&self, range: HostPageRange) -> Result<(), MachineError> {
        for (slot, memory) in self.slots.iter().zip(&self.guest_memfds) {
            let (Some(slot), Some(memory)) = (slot, memory) else { continue };
            for page in 0..slot.pages as usize {
                if range.contains(slot.hva.add(page as u64)) {
                    memory.punch_hole(page, 1).doing("punch a hole into a guest_memfd")?;
                }
            }
        }
        Ok(())
    }
}

fn frames_of(vm: &VmConfig, slot: &Slot) -> FrameSet {
    vm.frames(slot.gfn, slot.pages.into())
}

/// Makes one call for each run of adjacent `frames`.
fn set_private(kvm: Backing<'_>, mut frames: FrameSet, private: bool) -> Result<(), MachineError> {
    while let Some(first) = frames.first() {
        let pages = (first..FRAMES).take_while(|&frame| frames.contains(frame)).count();
        let gpa = Gpa::from_page(kvm.vm.gfn(first).raw());
        guest_memfd::set_private(kvm.fd, gpa, pages, private).doing("set the attributes of memory")?;
        frames = frames.minus(FrameSet::range(first, pages));
    }
    Ok(())
}
