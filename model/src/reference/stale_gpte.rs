//! Entries of the guest's page tables as they were before they changed: a TLB may still go by them.

use super::Model;
use crate::frame_set::FrameSet;
use crate::host::Host;
use crate::program::{Gpte, GpteFlags};

/// What an entry of a guest's page table was before it was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct StaleGpte {
    frame: u8,
    index: u8,
    gpte: Gpte,
    /// The vCPUs that may still go by it, one bit each.
    vcpus: u8,
    /// It was not the guest that changed it, or not by this frame.
    lasting: bool,
}

impl Model {
    /// Entries of page tables were lost by the last op, which wrote to `written`, if it was a write of the guest.
    pub(super) fn note_overwritten(&mut self, host: &Host, written: Option<usize>) {
        for &(hva, index, gpte) in host.overwritten() {
            if !gpte.has(GpteFlags::PRESENT) {
                continue; // no TLB holds it
            }
            for frame in self.frames_of(crate::program::HostPageRange { start: hva, pages: 1 }).iter() {
                let vcpus = u8::MAX >> (u8::BITS as u8 - self.vm().vcpus());
                let lasting = written != Some(frame);
                let frame = frame as u8;
                let same = |stale: &&mut StaleGpte| (stale.frame, stale.index, stale.gpte) == (frame, index, gpte);
                match self.stale.iter_mut().find(same) {
                    Some(stale) => (stale.vcpus, stale.lasting) = (vcpus, stale.lasting || lasting),
                    None => self.stale.push(StaleGpte { frame, index, gpte, vcpus, lasting }),
                }
            }
        }
    }

    /// `vcpu` emptied its TLB.
    pub(super) fn flush_guest_tlb(&mut self, vcpu: u8) {
        for stale in self.stale.iter_mut().filter(|stale| !stale.lasting) {
            stale.vcpus &= !(1 << vcpu);
        }
        self.stale.retain(|stale| stale.vcpus != 0);
    }

    /// A memslot change took `frames`, and all that was made of the tables there.
    pub(super) fn forget_tables(&mut self, frames: FrameSet) {
        self.shadowed = self.shadowed.minus(frames);
        self.stale.retain(|stale| !frames.contains(stale.frame.into()));
    }

    pub(super) fn stale_at(&self, vcpu: u8, frame: usize, index: u8) -> impl Iterator<Item = Gpte> {
        let at = move |stale: &&StaleGpte| {
            (usize::from(stale.frame), stale.index) == (frame, index) && stale.vcpus >> vcpu & 1 != 0
        };
        self.stale.iter().filter(at).map(|stale| stale.gpte)
    }
}
