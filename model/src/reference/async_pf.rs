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
    /// What `vcpu` may be told that faults on a page that has to be read in. An alias of no memory, an INVALID slot, a tracked write
    /// and private memory are decided before the page is looked up.
    pub(super) fn expect_wait(&self, host: &Host, at: (u8, Gpa, Access), allowed: &mut Allowed) {
        if let Some(wait) = self.wait_for(host, at).filter(|_| allowed.mmio.is_none()) {
            let awaited = self.awaited(wait.vcpu);
            allowed.halted = awaited.contains(wait.frame.into());
            allowed.page_not_present = !allowed.halted && awaited.len() < ASYNC_PF;
        }
    }

    /// The guest on `vcpu` was told that the page is not present.
    pub(super) fn observe_wait(&mut self, host: &Host, at: (u8, Gpa, Access)) {
        let wait = self.wait_for(host, at);
        self.async_pf.extend(wait);
    }

    fn wait_for(&self, host: &Host, (vcpu, gpa, access): (u8, Gpa, Access)) -> Option<AsyncPf> {
        let (frame, alias) = self.vm().locate(gpa).filter(|_| self.vm().async_pf())?;
        // Private memory is never paged out.
        if self.vm().shared_private() && alias.is_none() {
            return None;
        }
        let hva = self.hva(frame).filter(|hva| host.is_out(*hva) && self.waits(frame, access))?;
        Some(AsyncPf { vcpu, frame: frame as u8, gpa, access, hva, read_in: false })
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

    /// What it may come to that `vcpu` takes a page. One that was read in must not be left, and must be mapped if the guest could
    /// use it.
    pub(super) fn expect_page_ready(&self, host: &Host, vcpu: u8) -> Allowed {
        let ready = self.async_pf.iter().filter(|page| page.vcpu == vcpu && page.read_in);
        let page_ready: Vec<(Gpa, bool)> = ready
            .map(|page| {
                let access = self.expect_access(host, page.gpa, page.access);
                (page.gpa, access.memory.is_some() && access.emulated.is_none() && !access.retry)
            })
            .collect();
        Allowed { done: page_ready.is_empty(), page_ready, ring_full: self.may_be_full(vcpu), ..Allowed::default() }
    }

    /// The guest on `vcpu` was told that the page is there which it faulted on by `gpa`.
    pub(super) fn observe_page_ready(&mut self, host: &Host, vcpu: u8, gpa: Gpa, exit: &Exit) {
        let told = |page: &AsyncPf| page.vcpu == vcpu && page.read_in && page.gpa == gpa;
        if let Some(at) = self.async_pf.iter().position(told) {
            let AsyncPf { gpa, access, .. } = self.async_pf.remove(at);
            self.observe_access(host, vcpu, (gpa, access), exit);
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
