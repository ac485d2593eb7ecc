//! Async page faults (`virt/kvm/async_pf.c`): a vCPU does not sleep for a page that has to be read in. The guest is
//! told "page not present", runs another task, and is told "page ready" later.
//!
//! A vCPU waits for a gfn once, whatever alias it faults on; a second fault on that gfn halts the vCPU. A page that is
//! ready is mapped under the alias that faulted first. Memslot and page may have changed meanwhile, so both are looked
//! up again.

use crate::fault::{FaultIn, Wait};
use crate::host::{HostPages, TlbFlush};
use crate::policy::{HasPolicy, Mistake, Policy};
use crate::second_stage::async_pf::{AsyncPf, Work};
use crate::second_stage::{SecondStage, direct_bits};
use crate::tables::roots::Root;
use crate::tables::spte::Format;
use gpa_model::limits::ASYNC_PF;
use gpa_model::{Access, Exit, Gfn, Gpa, HostPage, HostPageRange, Rights};

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// Begins to read in the page behind `hva` for `vcpu`. Returns `None` if the vCPU has to sleep instead: it waits
    /// for too many pages already, or the page is private (`kvm_arch_setup_async_pf()`).
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

    /// The pages of `range` have been read in, for every vCPU that waits for one of them (`async_pf_execute()`).
    pub fn page_in(&self, range: HostPageRange) {
        for waiting in &self.async_pf {
            let AsyncPf(works) = &mut *waiting.lock();
            works.iter_mut().filter(|work| range.contains(work.hva)).for_each(|work| work.done = true);
        }
    }

    /// Maps one page that `vcpu` waits for and that has been read in. Returns the address that faulted first, which the
    /// guest has to be told (`kvm_check_async_pf_completion()`).
    pub fn page_ready(&self, host: &dyn HostPages, tlb: &mut dyn TlbFlush, vcpu: u8) -> Option<Gpa> {
        let Work { gpa, access, .. } = self.async_pf[usize::from(vcpu)].lock().take_done()?;
        let slots = self.slots.read();
        let named = self.policy().ready_gpa(self.vm.stolen(), gpa);
        let present = self.walk(named).is_some_and(|spte| spte.rights().contains(Rights::needed(access)));
        if !present && let FaultIn::Map(fault) = self.fault_in(host, &slots, vcpu, (named, access), Wait::Sleep) {
            // On a retry nothing is mapped; the guest's next access faults again.
            let _resolved = self.map(host, &slots, tlb, &fault);
        }
        Some(gpa)
    }

    /// Forgets the pages that `vcpu` waits for: its guest switched async page faults off, or the vCPU is reset or
    /// destroyed (`kvm_clear_async_pf_completion_queue()`).
    pub fn clear_async_pf(&self, vcpu: u8) {
        let AsyncPf(works) = &mut *self.async_pf[usize::from(vcpu)].lock();
        works.retain(|work| work.done && self.plants(Mistake::ApfOutlivesVcpu));
    }
}
