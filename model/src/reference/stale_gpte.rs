//! Entries of the guest's page tables as they were before they changed: a TLB may still go by them.

use super::Model;
use crate::addr::HostPage;
use crate::frame_set::FrameSet;
use crate::host::Host;
use crate::program::{Gpte, GpteFlags, HostPageRange};

/// When an entry of a guest's page table was written: the number of the write, 0 for the zeros of a new page.
pub(super) type WriteTime = u32;

/// What an entry of a guest's page table was before it was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct StaleGpte {
    frame: u8,
    index: u8,
    gpte: Gpte,
    /// The vCPUs that may still go by it, one bit each.
    vcpus: u8,
    /// The guest did not change it, or not by this frame. No hypervisor learns of that.
    lasting: bool,
    /// When it was written, and when it was written over.
    from: WriteTime,
    until: WriteTime,
}

/// An entry that a walk may read, and the time within which it was there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Readable {
    pub(super) gpte: Gpte,
    pub(super) from: WriteTime,
    pub(super) until: WriteTime,
}

/// The last write to each entry of a guest's page table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct GpteWrites {
    now: WriteTime,
    last: Vec<(u64, u8, WriteTime)>,
}

impl GpteWrites {
    fn time(&self, hva: HostPage, index: u8) -> WriteTime {
        let same = |(page, at, _): &&(u64, u8, WriteTime)| (*page, *at) == (hva.page(), index);
        self.last.iter().find(same).map_or(0, |(_, _, time)| *time)
    }

    fn note(&mut self, hva: HostPage, index: u8) {
        let same = |(page, at, _): &&mut (u64, u8, WriteTime)| (*page, *at) == (hva.page(), index);
        match self.last.iter_mut().find(same) {
            Some((_, _, time)) => *time = self.now,
            None => self.last.push((hva.page(), index, self.now)),
        }
    }
}

impl Model {
    /// Entries of page tables were written over by the last op, which wrote to `written`, if it was a write of the guest.
    pub(super) fn note_overwritten(&mut self, host: &Host, written: Option<usize>) {
        if host.overwritten().is_empty() {
            return;
        }
        self.gpte_writes.now += 1;
        for &(hva, index, gpte) in host.overwritten() {
            if host.gpte(hva, index) == gpte {
                continue; // It was written as it was.
            }
            let (from, until) = (self.gpte_writes.time(hva, index), self.gpte_writes.now);
            self.gpte_writes.note(hva, index);
            if !gpte.has(GpteFlags::PRESENT) {
                continue; // No TLB holds it.
            }
            for frame in self.frames_of(HostPageRange { start: hva, pages: 1 }).iter() {
                let vcpus = u8::MAX >> (u8::BITS as u8 - self.vm().vcpus());
                let lasting = written != Some(frame);
                let frame = frame as u8;
                let same = |stale: &&mut StaleGpte| (stale.frame, stale.index, stale.gpte) == (frame, index, gpte);
                match self.stale.iter_mut().find(same) {
                    Some(stale) => {
                        (stale.vcpus, stale.lasting, stale.until) = (vcpus, stale.lasting || lasting, until);
                    }
                    None => self.stale.push(StaleGpte { frame, index, gpte, vcpus, lasting, from, until }),
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

    /// Everything that a walk on `vcpu` may read at `index` of the table in `frame`, which `hva` backs: what is there, and what
    /// was.
    pub(super) fn readable(
        &self,
        host: &Host,
        vcpu: u8,
        (frame, hva): (usize, HostPage),
        index: u8,
    ) -> impl Iterator<Item = Readable> {
        let now =
            Readable { gpte: host.gpte(hva, index), from: self.gpte_writes.time(hva, index), until: WriteTime::MAX };
        let at = move |stale: &&StaleGpte| {
            (usize::from(stale.frame), stale.index) == (frame, index) && stale.vcpus >> vcpu & 1 != 0
        };
        let was = self.stale.iter().filter(at).map(|stale| Readable {
            gpte: stale.gpte,
            from: stale.from,
            // What no hypervisor learns of may be linked at a new place as it was.
            until: if stale.lasting { WriteTime::MAX } else { stale.until },
        });
        std::iter::once(now).chain(was)
    }
}
