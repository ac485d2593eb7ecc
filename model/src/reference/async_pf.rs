//! Async page faults: a vCPU whose page has to be read in first does not sleep for it. The guest is told that the page is not there
//! yet, goes on with something else, and is told when it is (`virt/kvm/async_pf.c`).
//!
//! A vCPU waits for a frame, by whatever name it faulted: a second fault, on any alias, has nothing new to tell the guest, and the
//! vCPU halts. That the page is there the guest is told by the name it faulted on first, and that name is mapped. Nobody has to
//! wait so: to sleep until the page is read in is right at any time.

use super::{Allowed, Model, SlotKind};
use crate::addr::{Gpa, HostPage};
use crate::frame_set::FrameSet;
use crate::host::Host;
use crate::limits::ASYNC_PF;
use crate::mmu::Exit;
use crate::program::{Access, HostPageRange};

/// A page that a vCPU waits for (`struct kvm_async_pf`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct AsyncPf {
    vcpu: u8,
    frame: u8,
    /// The name that the guest faulted on.
    gpa: Gpa,
    access: Access,
    /// What is read in. The memslot may be another by the time it is.
    hva: HostPage,
    read_in: bool,
}

impl Model {
    /// `vcpu` may have faulted on a page that has to be read in, which ended in `exit`. An alias of no memory, an INVALID slot,
    /// a tracked write and private memory are seen to before anybody looks for the page.
    pub(super) fn fault_on_page(
        &mut self,
        host: &Host,
        (vcpu, gpa, access): (u8, Gpa, Access),
        exit: &Exit,
        allowed: &mut Allowed,
    ) {
        if !self.vm().async_pf() {
            return;
        }
        let Some((frame, alias)) = self.vm().locate(gpa) else { return };
        // Private memory is never paged out.
        if self.vm().shared_private() && alias.is_none() {
            return;
        }
        let is_out = self.hva(frame).filter(|hva| host.is_out(*hva) && self.waits(frame, access));
        let Some(hva) = is_out.filter(|_| allowed.mmio.is_none()) else { return };
        let awaited = self.awaited(vcpu);
        allowed.halted = awaited.contains(frame);
        allowed.page_not_present = !allowed.halted && awaited.len() < ASYNC_PF;
        if allowed.page_not_present && *exit == Exit::PageNotPresent {
            self.async_pf.push(AsyncPf { vcpu, frame: frame as u8, gpa, access, hva, read_in: false });
        }
    }

    fn waits(&self, frame: usize, access: Access) -> bool {
        let emulated = access == Access::Write && self.tracked.contains(frame);
        self.slot_kind(frame) != SlotKind::Invalid && !emulated && !self.memory_attributes().private().contains(frame)
    }

    /// The pages of `range` have been read in, for whoever waits for them.
    pub(super) fn read_in(&mut self, range: HostPageRange) {
        let done = self.async_pf.iter_mut().filter(|page| range.contains(page.hva));
        done.for_each(|page| page.read_in = true);
    }

    /// What may come of it that `vcpu` takes a page. One that was read in must not be left, and must be mapped if the guest could
    /// use it.
    pub(super) fn page_ready(&mut self, host: &Host, vcpu: u8, exit: &Exit) -> Allowed {
        let ready = |page: &AsyncPf| page.vcpu == vcpu && page.read_in;
        let told = |page: &AsyncPf| ready(page) && *exit == Exit::PageReady(page.gpa);
        let (told, any) = (self.async_pf.iter().position(told), self.async_pf.iter().find(|page| ready(page)));
        let Some(at) = told else {
            let (done, page_ready) = (any.is_none(), any.map(|page| page.gpa));
            let ring_full = self.list_dirty(vcpu, FrameSet::EMPTY);
            return Allowed { done, page_ready, ring_full, ..Allowed::default() };
        };
        let AsyncPf { gpa, access, .. } = self.async_pf.remove(at);
        let access = self.access(host, gpa, access, exit);
        Allowed {
            page_ready: Some(gpa),
            ring_full: self.list_dirty(vcpu, self.frames_at(gpa)),
            ready_is_mapped: access.memory.is_some() && access.emulated.is_none() && !access.retry,
            ..Allowed::default()
        }
    }

    /// `vcpu` waits for nothing any more.
    pub(super) fn clear_async_pf(&mut self, vcpu: u8) {
        self.async_pf.retain(|page| page.vcpu != vcpu);
    }

    /// The frames that `vcpu` waits for.
    pub fn awaited(&self, vcpu: u8) -> FrameSet {
        let awaited = self.async_pf.iter().filter(|page| page.vcpu == vcpu);
        awaited.fold(FrameSet::EMPTY, |set, page| set.union(FrameSet::one(page.frame.into())))
    }
}
