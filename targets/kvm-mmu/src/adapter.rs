//! [`KvmMmu`] runs the ops of a program on a [`SecondStage`], and keeps what an op has begun for the op that ends it.

mod export;
mod inspect;
mod ordered;
mod reaper;

pub use export::{ExportError, Placement};

use crate::fault::PageFault;
use crate::memslots::slots::SlotError;
use crate::policy::{Corrected, Family, HasPolicy, Mistake, Policy};
use crate::second_stage::SecondStage;
use crate::tables::spte::{Ept, Format};
use crate::zap::gfn_range::GfnZap;
use gpa_model::limits::VCPUS;
use gpa_model::{
    Access, Capabilities, Exit, FlushBackend, Gfn, GfnIndexed, Gpa, Host, Mmu, Op, Reclaim, SlotChange, SlotFlags,
    SlotId, Spte, VmConfig,
};
use ordered::Ordered;
use reaper::Reaper;

/// A second-stage MMU that is driven op by op. `P` decides; the tables have the format `F`.
#[derive(Debug)]
pub struct KvmMmu<P: HasPolicy = Corrected, F: Format = Ept> {
    pub(crate) mmu: SecondStage<P, F>,
    slot_change: Option<(SlotId, SlotChange)>,
    faults: [Option<(PageFault, Access)>; VCPUS],
    zap: Option<GfnZap>,
    reaper: Reaper,
    /// The warning that the last op caused, if any.
    warning: Option<&'static str>,
}

impl<P: HasPolicy + Default, F: Format> Default for KvmMmu<P, F> {
    fn default() -> Self {
        Self::new(&VmConfig::default())
    }
}

impl<P: HasPolicy, F: Format> KvmMmu<P, F> {
    /// An MMU with no memslot and no mapping.
    pub fn new(vm: &VmConfig) -> Self
    where
        P: Default,
    {
        Self::with_policy(P::default(), vm)
    }

    /// The same, with the decisions of `policy`.
    pub fn with_policy(policy: P, vm: &VmConfig) -> Self {
        Self {
            mmu: SecondStage::with_policy(policy, vm),
            slot_change: None,
            faults: [None; VCPUS],
            zap: None,
            reaper: Reaper::default(),
            warning: None,
        }
    }
}

impl<P: HasPolicy, F: Format> Mmu for KvmMmu<P, F> {
    fn reset(&mut self, vm: &VmConfig) {
        self.mmu.reset(vm);
        self.slot_change = None;
        self.faults = [None; VCPUS];
        self.zap = None;
        self.reaper.clear();
        self.warning = None;
    }

    fn step(&mut self, host: &Host, tlb: &mut FlushBackend, op: &Op) -> Exit {
        self.warning = None;
        let mmu = &self.mmu;
        let tlb = &mut Ordered::new(tlb, &mmu.tables, &mmu.vm);
        let entering = entering_vcpu(op);
        let stays_in_guest = mmu.vm.dirty_ring().is_none()
            && matches!(op, Op::Access { .. } | Op::WriteGpte { .. } | Op::FaultBegin { .. });
        if !stays_in_guest && !matches!(op, Op::FaultEnd { .. }) && !self.mmu.plants(Mistake::PmlNotDrained) {
            mmu.drain_pml(entering);
        }
        if entering.is_some_and(|vcpu| mmu.is_dirty_ring_full(vcpu)) {
            return Exit::RingFull;
        }
        match *op {
            Op::Access { vcpu, gpa, access } => return mmu.access(host, tlb, vcpu, gpa, access),
            Op::FaultBegin { vcpu, gpa, access } => return self.fault_begin(host, vcpu, gpa, access),
            Op::Prefault { vcpu, gpa } => return mmu.prefault(host, tlb, vcpu, gpa),
            Op::FaultEnd { vcpu } => {
                let fault = self.faults[usize::from(vcpu)].take();
                let end = |(fault, access)| mmu.map_and_reenter(host, &mmu.slots.read(), tlb, &fault, access);
                return fault.map_or(Exit::Error, end);
            }
            Op::Translate { table, leaf, .. } => return mmu.translate(table, leaf),
            Op::WriteGpte { vcpu, gpa, index, .. } => {
                let exit = mmu.access(host, tlb, vcpu, gpa, Access::Write);
                if matches!(exit, Exit::Emulated(_)) {
                    mmu.guest_pte_written(gpa, index, tlb);
                }
                return exit;
            }
            Op::GuestAccess { vcpu, root, gva, access } => {
                let accessed = mmu.guest_access(host, tlb, vcpu, (root, gva), access);
                self.warning = mmu.warning.lock().take();
                return accessed.unwrap_or(Exit::Refused);
            }
            Op::GuestFlush { .. } => mmu.guest_flush(host, tlb),
            Op::PageReady { vcpu } => return mmu.page_ready(host, tlb, vcpu).map_or(Exit::Done, Exit::PageReady),
            Op::AsyncPfClear { vcpu } => mmu.clear_async_pf(vcpu),
            Op::PageIn { range } => mmu.page_in(range),
            Op::GuestWalk { root, gva, access, .. } => {
                return mmu.guest_walk(host, root, gva, access).map_or_else(Exit::GuestFault, Exit::Translated);
            }
            Op::DirtyGet { id } if mmu.vm.dirty_ring().is_some() => {
                return Exit::Dirty(self.reaper.dirty_frames(mmu, id));
            }
            Op::DirtyGet { id } => return Exit::Dirty(mmu.dirty_frames(id)),
            Op::Age { range } => return Exit::Young(mmu.age(range)),
            Op::Slot { id, change } => {
                self.reaper.memslot_changes(mmu, id, change);
                return done(mmu.set_memslot(id, change, tlb));
            }
            Op::SlotBegin { id, change } => {
                self.reaper.memslot_changes(mmu, id, change);
                let begun = mmu.slot_begin(id, change, tlb);
                self.slot_change = begun.is_ok().then_some((id, change));
                return done(begun);
            }
            Op::SlotEnd => {
                if let Some((id, change)) = self.slot_change.take() {
                    mmu.slot_end(id, change, tlb);
                }
            }
            Op::Unmap { range, by: Some(Reclaim::PunchHole) } if mmu.vm.shared_private() => mmu.punch_hole(range, tlb),
            Op::Unmap { range, .. } | Op::Collapse { range } | Op::PageOut { range } | Op::ProtNone { range } => {
                mmu.invalidate_begin(range, tlb);
                mmu.invalidate_end();
            }
            Op::UnmapBegin { range, .. } => mmu.invalidate_begin(range, tlb),
            Op::UnmapEnd { .. } => mmu.invalidate_end(),
            Op::DirtyClear { id, gfn, pages } if mmu.vm.dirty_ring().is_some() => {
                self.reaper.forget(mmu, (id, gfn, pages.into()), tlb);
            }
            Op::DirtyClear { id, gfn, pages } => mmu.clear_dirty_log(id, gfn, pages.into(), tlb),
            Op::WriteProtect { gfn } => mmu.write_protect_gfn(gfn, tlb),
            Op::WriteTrack { gfn } => mmu.track(gfn, tlb),
            Op::WriteUntrack { gfn } => mmu.untrack(gfn),
            Op::Attributes { gfn, pages, private } => mmu.set_attributes(gfn, pages.into(), private, tlb),
            Op::AttributesBegin { gfn, pages, private } => mmu.attributes_begin(gfn, pages.into(), private, tlb),
            Op::AttributesEnd => mmu.attributes_end(),
            Op::MemoryType { gfn, pages, memory } => mmu.set_memory_type(gfn, pages.into(), memory, tlb),
            Op::ZapBegin { gfn, pages, leaves } => {
                let mut zap = mmu.zap_begin(gfn, pages.into());
                mmu.zap_some(&mut zap, leaves.into(), tlb);
                self.zap = Some(zap);
            }
            Op::ZapEnd => {
                if let Some(zap) = self.zap.take() {
                    mmu.zap_end(zap, tlb);
                }
            }
            Op::NxRecover => mmu.recover_nx_huge_page(tlb),
            Op::MmuPages { pages } => mmu.set_mmu_pages(pages.into(), tlb),
            Op::SlotAliased { id, gpa, pages, hva } => {
                let gfn = Gfn::new(gpa.page());
                return done(mmu.set_memslot(
                    id,
                    SlotChange::Create { gfn, pages, hva, flags: SlotFlags::default() },
                    tlb,
                ));
            }
            Op::Backend(_) => {}
        }
        Exit::Done
    }

    fn walk(&self, gpa: Gpa) -> Option<Spte> {
        self.mmu.tables.walk(gpa)
    }

    fn walk_window(&self, gpa: Gpa, stride: u64, visit: &mut dyn FnMut(usize, Spte)) {
        self.mmu.tables.walk_window(gpa, stride, visit);
    }

    /// The TDP MMU does not shadow guest page tables.
    fn supports(&self, op: &Op) -> bool {
        self.mmu.policy().family() == Family::Rmap || !matches!(op, Op::GuestAccess { .. } | Op::GuestFlush { .. })
    }

    fn supports_vm(&self, vm: &VmConfig) -> bool {
        match self.mmu.policy().family() {
            Family::Rmap => !vm.shared_private(),
            Family::Tdp => vm.stolen().bits().len() <= 1,
        }
    }

    fn inspect(&self, visit: &mut dyn FnMut(GfnIndexed)) {
        self.report(visit);
    }

    fn warning(&self) -> Option<&'static str> {
        self.warning
    }

    fn capabilities(&self) -> Capabilities {
        // The TDP MMU has no rmap and does not shadow guest page tables.
        let (rmap, roots) = (self.mmu.policy().family() == Family::Rmap, self.mmu.policy().family() == Family::Tdp);
        Capabilities {
            tables: true,
            flushes: true,
            keys: true,
            rmap,
            roots,
            shadows: rmap,
            pins: true,
            order: true,
            refuses_aliased_prefault: true,
            ..Capabilities::EXITS
        }
    }
}

impl<P: HasPolicy, F: Format> KvmMmu<P, F> {
    fn fault_begin(&mut self, host: &Host, vcpu: u8, gpa: Gpa, access: Access) -> Exit {
        match self.mmu.access_up_to_map(host, &self.mmu.slots.read(), vcpu, gpa, access) {
            Ok(fault) => {
                self.faults[usize::from(vcpu)] = Some((fault, access));
                Exit::Pending
            }
            Err(exit) => exit,
        }
    }
}

/// The vCPU that is about to enter the guest or to map a page. Its dirty ring must have room.
const fn entering_vcpu(op: &Op) -> Option<u8> {
    match *op {
        Op::Access { vcpu, .. }
        | Op::WriteGpte { vcpu, .. }
        | Op::FaultBegin { vcpu, .. }
        | Op::GuestAccess { vcpu, .. }
        | Op::PageReady { vcpu }
        | Op::Prefault { vcpu, .. } => Some(vcpu),
        _ => None,
    }
}

fn done(changed: Result<(), SlotError>) -> Exit {
    if changed.is_ok() { Exit::Done } else { Exit::Refused }
}
