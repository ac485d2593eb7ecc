//! Private memory, which the host cannot reach. Only the guest can give its pages their identities.
//!
//! When a frame changes between private and shared, its old page stays, with the same identity. A private page that is left
//! behind is marked by the guest before. A write that reaches a shared page that was left behind is visible to the host.

use super::Machine;
use crate::error::{Doing, MachineError};
use crate::guest::names;
use crate::guest::requests::{self, Request};
use crate::kvm::memslots::Backing;
use gpa_model::limits::OPS;
use gpa_model::{Access, Exit, FrameSet, Pfn, SlotId, VmConfig};

/// The identity of a private page that its frame has left.
const ABANDONED: Pfn = Pfn::new(u32::MAX);

impl Machine {
    /// Makes `frames`, which are adjacent, private or shared.
    pub(super) fn set_attributes(
        &mut self,
        vm: &VmConfig,
        frames: FrameSet,
        private: bool,
    ) -> Result<Exit, MachineError> {
        if !private {
            let abandoned = self.private_of(vm, frames).into_iter().map(|(frame, _)| (frame, ABANDONED));
            self.stamp_by_guest(abandoned.collect())?;
        }
        let kvm = Backing { fd: &self.fd, memory: &self.memory, vm };
        self.memslots.set_attributes(kvm, frames, private)?;
        if private {
            self.stamp_private(self.private_of(vm, frames))?;
        }
        Ok(Exit::Done)
    }

    /// Makes the frames of the new memslot `id` private, as far as they are to be, and gives them their
    /// identities. The guest touches them as shared ones first: where it has seen a hole, Linux 6.12 refuses
    /// access to memory that is private from the start.
    pub(super) fn make_slot_private(&mut self, vm: &VmConfig, id: SlotId) -> Result<(), MachineError> {
        let private = self.memslots.private_frames(vm, Some(id), None);
        if private.is_empty() {
            return Ok(());
        }
        let window = self.window;
        let touch = |&(frame, _): &(usize, usize)| Request {
            access: Access::Read,
            page: names::name(window, 0, frame),
            offset: 0,
            value: 0,
        };
        self.access_by_guest(&private.iter().map(touch).collect::<Vec<_>>())?;
        let kvm = Backing { fd: &self.fd, memory: &self.memory, vm };
        self.memslots.make_private(kvm, id)?;
        self.stamp_private(private)
    }

    fn private_of(&self, vm: &VmConfig, frames: FrameSet) -> Vec<(usize, usize)> {
        let mut private = self.memslots.private_frames(vm, None, None);
        private.retain(|(frame, _)| frames.contains(*frame));
        private
    }

    /// Lets the guest write to each of `frames` the identity of its host page.
    pub(super) fn stamp_private(&mut self, frames: Vec<(usize, usize)>) -> Result<(), MachineError> {
        self.stamp_by_guest(frames.into_iter().map(|(frame, page)| (frame, self.stamps[page])).collect())
    }

    /// Lets the guest write an identity to each frame, through its base name.
    fn stamp_by_guest(&mut self, frames: Vec<(usize, Pfn)>) -> Result<(), MachineError> {
        let window = self.window;
        let requests: Vec<_> = frames
            .into_iter()
            .flat_map(|(frame, identity)| requests::stamp_requests(names::name(window, 0, frame), identity))
            .collect();
        self.access_by_guest(&requests)
    }

    /// Makes accesses on the first vCPU. If one fails, its page bears no identity, which the next access
    /// reports.
    fn access_by_guest(&mut self, requests: &[Request]) -> Result<(), MachineError> {
        let (vcpu, mut outcomes) = (&mut self.vcpus[0], Vec::new());
        vcpu.use_tables(self.tables_written)?;
        for list in requests.chunks(OPS) {
            self.watchdog.arm().doing("arm the watchdog")?;
            vcpu.run(&self.own, &self.watchdog, list, false, &mut outcomes)?;
        }
        Ok(())
    }
}
