//! Held faults: a vCPU waits inside its page fault for a host page that a userfaultfd has not filled in yet, while the host
//! invalidates pages.
//!
//! By then KVM has read `mmu_seq` and looked up the memslot, so it must notice the invalidation and retry
//! (`is_page_fault_stale()`). It also holds `kvm->srcu`, which memslot changes wait for. So a fault is held only across
//! invalidations; before any other op it ends at once, as any fault may.

use super::Machine;
use super::accesses::Asked;
use super::helper::{Ended, Helper};
use super::mmu_watch::PageNames;
use crate::error::{Doing, MachineError};
use crate::guest::page;
use crate::host::memory::{PAGE_BYTES, Pages};
use crate::host::reclaim::{Reclaimed, discard, leaves_userfaults_alone, replaces};
use crate::host::userfault::Userfault;
use crate::kvm::alias_method::AliasMethod;
use gpa_model::limits::HOST_PAGES;
use gpa_model::{Access, Exit, Host, HostPage, HostPageRange, Model, Op, Pfn, Program, Reclaim};
use std::sync::Arc;
use std::time::Duration;

/// How often to check whether the fault ended without the page.
const LOOK: Duration = Duration::from_millis(1);

/// A fault that can be held.
struct Plan {
    vcpu: usize,
    asked: Asked,
    /// The host page that the fault waits for.
    page: usize,
    /// The number of the op that ends the fault.
    end: usize,
}

impl Machine {
    /// Why faults cannot be held here; `None` if they can.
    pub fn held_faults_lacking(&self) -> Option<&str> {
        self.reclaims.lacking(Reclaim::UffdCopy)
    }

    /// Carries out the ops from number `at`, which begins a fault, to the one that ends it, and returns the
    /// number of the next. `None` if the fault cannot be held; then nothing was done.
    pub(super) fn hold(
        &mut self,
        program: &Program,
        at: usize,
        host: &mut Host,
        model: &mut Model,
        observations: &mut [Option<Exit>],
    ) -> Result<Option<usize>, MachineError> {
        let vm = &program.vm;
        let Some(Plan { vcpu, asked, page, end }) = self.plan(program, at) else { return Ok(None) };
        self.vcpus[vcpu].use_tables(self.tables_written)?;
        self.vcpus[vcpu].enter_space(asked.space)?;
        let helper = self.helper.take().map_or_else(|| Helper::new(Arc::clone(&self.own)), Ok)?;
        let mut stamps = self.stamps;
        let Self { vcpus, memory, reclaims, mmu_watch, internal_slots, .. } = self;
        let (memory, internal_slots) = (&*memory, &*internal_slots);
        let userfault = Userfault::new().doing("make a userfaultfd")?;
        for mapping in 0..memory.mappings() {
            let range = memory.range(mapping, page, 1);
            userfault.register_missing(range, PAGE_BYTES).doing("watch a page by a userfaultfd")?;
        }
        discard(memory, page, 1).doing("discard the page of a fault")?;
        helper.start(vcpus.swap_remove(vcpu), asked.request)?;
        let mut over = None;
        // The userfaultfd is dropped on every path before the vCPU is joined, which ends the vCPU's wait.
        let mut meanwhile = |userfault: Userfault| {
            over = waits(&userfault, &helper)?;
            let mut there = false;
            if over.is_none() {
                observations[at] = Some(Exit::Pending);
                model.step(host, &program.ops[at], &Exit::Pending);
                mmu_watch.look(vm, PageNames { memory, stamps: &stamps, internal_slots }, at, false)?;
                for (number, op) in program.ops.iter().enumerate().take(end).skip(at + 1) {
                    let Op::Unmap { range, by } = *op else { continue };
                    let (start, pages) = (range.start.page() as usize, range.pages as usize);
                    let reclaimed = reclaims.unmap(by, memory, start, pages).doing("take host pages away")?;
                    if reclaimed == Reclaimed::Unsupported {
                        observations[number] = Some(Exit::Unsupported);
                        continue;
                    }
                    host.apply(op);
                    model.step(host, op, &Exit::Done);
                    // Touching the page while the userfaultfd watches it would block this thread, too.
                    there |= range.contains(HostPage::new(page as u64)) && replaces(by);
                    restamp(memory, &mut stamps, host, range, if there { None } else { Some(page) });
                    observations[number] = Some(Exit::Done);
                    mmu_watch.look(vm, PageNames { memory, stamps: &stamps, internal_slots }, number, false)?;
                }
            }
            stamps[page] = host.pfn(HostPage::new(page as u64));
            if !there {
                userfault.fill(memory.range(0, page, 1), &page::stamped(stamps[page])).doing("fill a page in")?;
            }
            Ok::<_, MachineError>(())
        };
        let done = meanwhile(userfault);
        let held = over.is_none();
        let (back, outcome) = over.map_or_else(|| helper.end(), Ok)?;
        vcpus.push(back);
        let last = vcpus.len() - 1;
        vcpus.swap(vcpu, last);
        self.helper = Some(helper);
        done?;
        self.stamps = stamps;
        self.accesses += 1;
        let exit = self.observed(vm, &asked.request, asked.frame, outcome?);
        if !held {
            observations[at] = Some(exit);
            self.look(vm, at)?;
            return Ok(Some(at + 1));
        }
        model.step(host, &program.ops[end], &exit);
        observations[end] = Some(exit);
        self.look(vm, end)?;
        Ok(Some(end + 1))
    }

    /// Whether the fault that begins with op number `at` can be held to its end.
    fn plan(&mut self, program: &Program, at: usize) -> Option<Plan> {
        let Op::FaultBegin { vcpu, gpa, access } = program.ops[at] else { return None };
        // An access that signals an ioeventfd does not exit.
        let rings = access == Access::Write && self.fingerprint.alias_method == AliasMethod::Ioeventfds;
        if rings || self.held_faults_lacking().is_some() {
            return None;
        }
        let end = end_of_fault(program, at)?;
        let (frame, _) = program.vm.locate(gpa)?;
        // Private memory has no hva to fault on, and only a running guest could give it new identities.
        let is_internal = |range| !self.memslots.private_frames(&program.vm, None, Some(range)).is_empty();
        let taken = |op: &Op| matches!(*op, Op::Unmap { range, .. } if is_internal(range));
        if self.memslots.is_private_frame(&program.vm, frame) || program.ops[at + 1..end].iter().any(taken) {
            return None;
        }
        let page = self.memslots.host_page(&program.vm, frame).filter(|page| !self.memory.is_gone(*page))?;
        let asked = self.ask(&program.vm, at, gpa, access)?;
        Some(Plan { vcpu: vcpu.into(), asked, page, end })
    }
}

/// The number of the op that ends the fault begun by op number `at`, if only ops come between that a fault can
/// be held across.
pub(crate) fn end_of_fault(program: &Program, at: usize) -> Option<usize> {
    let Op::FaultBegin { vcpu, .. } = program.ops[at] else { return None };
    let passes = |op: &Op| matches!(*op, Op::Unmap { by, .. } if leaves_userfaults_alone(by));
    let end = at + 1 + program.ops[at + 1..].iter().position(|op| !passes(op))?;
    (program.ops[end] == Op::FaultEnd { vcpu }).then_some(end)
}

/// Waits until the vCPU waits for the page, or its access ends without it, such as a write to a read-only
/// memslot.
fn waits(userfault: &Userfault, helper: &Helper) -> Result<Option<Ended>, MachineError> {
    loop {
        if userfault.faulted(LOOK).doing("wait for a page fault")? {
            return Ok(None);
        }
        if let Some(ended) = helper.try_end()? {
            return Ok(Some(ended));
        }
    }
}

/// Gives the pages of `range` the identities that `host` has for them, except in the memory of page `absent`.
fn restamp(memory: &Pages, stamps: &mut [Pfn; HOST_PAGES], host: &Host, range: HostPageRange, absent: Option<usize>) {
    for hva in range.iter() {
        let page = hva.page() as usize;
        stamps[page] = host.pfn(hva);
        if absent != Some(page) {
            page::stamp(memory, page, stamps[page]);
        }
    }
}
