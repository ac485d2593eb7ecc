//! Private memory, which the host cannot reach: only the guest can give its pages their identities.
//!
//! A page that becomes shared leaves another behind, which was the guest's own, and one that becomes private leaves the host's: both
//! bear the same identity, so the first is marked, and where a write to the second went the host can see.

use super::Machine;
use crate::error::{Doing, MachineError};
use crate::guest;
use crate::memslots::Backing;
use gpa_model::limits::OPS;
use gpa_model::{Exit, FrameSet, Pfn, Vm};

/// The identity of a private page that is nobody's any more.
const DISOWNED: Pfn = Pfn::new(u32::MAX);

impl Machine {
    /// Have `frames`, which lie side by side, be the guest's alone, or the host's as well.
    pub(super) fn set_attributes(&mut self, vm: &Vm, frames: FrameSet, private: bool) -> Result<Exit, MachineError> {
        if !private {
            let disowned = self.private_of(vm, frames).into_iter().map(|(frame, _)| (frame, DISOWNED));
            self.have_stamped(disowned.collect())?;
        }
        let kvm = Backing { fd: &self.fd, memory: &self.memory, vm };
        self.memslots.set_attributes(kvm, frames, private)?;
        if private {
            self.stamp_private(self.private_of(vm, frames))?;
        }
        Ok(Exit::Done)
    }

    fn private_of(&self, vm: &Vm, frames: FrameSet) -> Vec<(usize, usize)> {
        let mut private = self.memslots.private_frames(vm, None, None);
        private.retain(|(frame, _)| frames.contains(*frame));
        private
    }

    /// Have the guest write to each of `frames` the identity of the host page it stands for.
    pub(super) fn stamp_private(&mut self, frames: Vec<(usize, usize)>) -> Result<(), MachineError> {
        self.have_stamped(frames.into_iter().map(|(frame, page)| (frame, self.stamps[page])).collect())
    }

    /// Have the first vCPU write an identity to each frame, by its base name.
    fn have_stamped(&mut self, frames: Vec<(usize, Pfn)>) -> Result<(), MachineError> {
        let window = self.window;
        let requests: Vec<_> = frames
            .into_iter()
            .flat_map(|(frame, identity)| guest::stamp_requests(guest::name(window, 0, frame), identity))
            .collect();
        let (vcpu, mut outcomes) = (&mut self.vcpus[0], Vec::new());
        vcpu.use_tables(self.tables_written)?;
        for list in requests.chunks(OPS) {
            self.watchdog.arm().doing("arm the watchdog")?;
            // What cannot be reached now is a page that bears no identity, and the next access will tell.
            vcpu.run(&self.own, &self.watchdog, list, false, &mut outcomes)?;
        }
        Ok(())
    }
}
