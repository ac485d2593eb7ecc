//! Async page faults: a vCPU whose page has to be read in first does not sleep for it. The guest is told so and goes on with
//! something else, until it is told that the page is there (`virt/kvm/async_pf.c`).
//!
//! A vCPU waits for a gfn once, by whatever name it is faulted on; whoever runs into it again has to wait. When the page is there
//! it is mapped under the name that was faulted on first. By then anything may have become of memslot and page: it is a fault like
//! any other, and looks everything up anew.

use crate::fault::{FaultIn, Wait};
use crate::host::{HostPages, TlbFlush};
use crate::policy::{HasPolicy, Policy};
use crate::second_stage::async_pf::{AsyncPf, Work};
use crate::second_stage::{SecondStage, direct_bits};
use crate::tables::roots::Root;
use crate::tables::spte::Format;
use gpa_model::limits::ASYNC_PF;
use gpa_model::{Access, Exit, Gfn, Gpa, HostPage, HostPageRange, Rights};

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// The page behind `hva`, which `vcpu` faulted on, has to be read in; none if the vCPU has to sleep for it: it waits for too many
    /// pages, or the page is private (`kvm_arch_setup_async_pf()`).
    pub(crate) fn setup_async_pf(
        &self,
        vcpu: u8,
        (gpa, gfn): (Gpa, Gfn),
        access: Access,
        hva: HostPage,
    ) -> Option<FaultIn> {
        let mirrored = Root::of(direct_bits(self.policy(), &self.vm), gpa) == Root::Mirror;
        if !self.vm.async_pf() || mirrored || self.mmu_lock.lock().attributes.is_private(gfn) {
            return None;
        }
        let gfn = self.policy().awaited_gfn(self.vm.stolen(), gpa);
        let AsyncPf(works) = &mut *self.async_pf[usize::from(vcpu)].lock();
        if works.iter().any(|work| work.gfn == gfn) {
            return Some(FaultIn::Async(Exit::Halted));
        }
        if works.len() == ASYNC_PF {
            return None;
        }
        works.push(Work { gpa, access, gfn, hva, done: false });
        Some(FaultIn::Async(Exit::PageNotPresent))
    }

    /// The pages have been read in, for whoever waits for them (`async_pf_execute()`).
    pub fn page_in(&self, range: HostPageRange) {
        for waiting in &self.async_pf {
            let AsyncPf(works) = &mut *waiting.lock();
            works.iter_mut().filter(|work| range.contains(work.hva)).for_each(|work| work.done = true);
        }
    }

    /// Map one of the pages that `vcpu` waits for and that have been read in, and return the name that the guest faulted on and has to
    /// be told of (`kvm_check_async_pf_completion()`).
    pub fn page_ready(&self, host: &dyn HostPages, tlb: &mut dyn TlbFlush, vcpu: u8) -> Option<Gpa> {
        let Work { gpa, access, .. } = self.async_pf[usize::from(vcpu)].lock().take_done()?;
        let slots = self.slots.read();
        let named = self.policy().ready_gpa(self.vm.stolen(), gpa);
        let present = self.walk(named).is_some_and(|spte| spte.rights().contains(Rights::needed(access)));
        if !present && let FaultIn::Map(fault) = self.fault_in(host, &slots, vcpu, (named, access), Wait::Sleep) {
            // If that has to be tried again, the guest's next access will.
            let _resolved = self.map(host, &slots, tlb, &fault);
        }
        Some(gpa)
    }

    /// `vcpu` waits for nothing any more: its guest does not want to be told, it starts anew, or it goes
    /// (`kvm_clear_async_pf_completion_queue()`).
    pub fn clear_async_pf(&self, vcpu: u8) {
        let AsyncPf(works) = &mut *self.async_pf[usize::from(vcpu)].lock();
        works.retain(|work| work.done && !self.policy().cancels_done_work());
    }
}
