//! [`KvmMmu`]: the parts put together, and the ops of a program as calls into them.

use crate::bitmap::PageBitmap;
use crate::fault::{FaultIn, PageFault, Resolved};
use crate::flush::FlushOwed;
use crate::memslots::{Memslot, Memslots};
use crate::notifier::Notifier;
use crate::policy::{Corrected, Policy};
use crate::rmap::Rmap;
use crate::shadow_page::{ShadowPages, SpKey};
use gpa_model::limits::VCPUS;
use gpa_model::{
    Access, Exit, FlushBackend, FrameSet, Gfn, Gpa, Host, Hva, HvaRange, Keyed, Mmu, Op, Rights, Shows, SlotChange,
    SlotFlags, SlotId, Spte, Vm,
};
use std::marker::PhantomData;

/// A second-stage MMU of one VM.
#[derive(Debug)]
pub struct KvmMmu<P: Policy = Corrected> {
    pub(crate) vm: Vm,
    pub(crate) slots: Memslots,
    pub(crate) shadow_pages: ShadowPages,
    pub(crate) rmap: Rmap,
    pub(crate) notifier: Notifier,
    /// What the processor has logged and nobody has taken over yet.
    pub(crate) pml: Vec<Gpa>,
    slot_change: Option<(SlotId, SlotChange)>,
    faults: [Option<(PageFault, Access)>; VCPUS],
    policy: PhantomData<P>,
}

impl<P: Policy> Mmu for KvmMmu<P> {
    fn new(vm: &Vm) -> Self {
        Self {
            vm: *vm,
            slots: Memslots::new(),
            shadow_pages: ShadowPages::new(),
            rmap: Rmap::new(),
            notifier: Notifier::new(),
            pml: Vec::new(),
            slot_change: None,
            faults: [None; VCPUS],
            policy: PhantomData,
        }
    }

    fn reset(&mut self, vm: &Vm) {
        self.vm = *vm;
        self.slots.clear();
        self.shadow_pages.clear();
        self.rmap.clear();
        self.notifier = Notifier::new();
        self.pml.clear();
        self.slot_change = None;
        self.faults = [None; VCPUS];
    }

    fn step(&mut self, host: &Host, tlb: &mut FlushBackend, op: &Op) -> Exit {
        if !matches!(op, Op::Access { .. } | Op::FaultBegin { .. } | Op::FaultEnd { .. }) && P::drains_pml() {
            self.drain_pml();
        }
        match *op {
            Op::Access { gpa, access, .. } => return self.access(host, tlb, gpa, access),
            Op::FaultBegin { vcpu, gpa, access } => return self.fault_begin(host, vcpu, gpa, access),
            Op::Prefault { gpa, .. } => return self.prefault(host, tlb, gpa),
            Op::FaultEnd { vcpu } => return self.fault_end(host, tlb, vcpu),
            Op::Translate { table, leaf, .. } => return self.guest_walk(table, leaf),
            Op::DirtyGet { id } => return Exit::Dirty(self.dirty_frames(id)),
            Op::Age { range } => return Exit::Young(self.age(range)),
            Op::Slot { id, change } => {
                self.slot_begin(id, change, tlb);
                self.slot_end(tlb);
            }
            Op::SlotBegin { id, change } => self.slot_begin(id, change, tlb),
            Op::SlotEnd => self.slot_end(tlb),
            Op::Unmap { range } => {
                self.invalidate_begin(range, tlb);
                self.notifier.end();
            }
            Op::UnmapBegin { range, .. } => self.invalidate_begin(range, tlb),
            Op::UnmapEnd { .. } => self.notifier.end(),
            Op::DirtyClear { id, gfn, pages } => self.clear_dirty_log(id, gfn, pages.into(), tlb),
            Op::WriteProtect { gfn } => {
                let mut owed = FlushOwed::nothing();
                self.write_protect(gfn, true, &mut owed);
                owed.range::<P>(self.vm.stolen(), gfn, 1, tlb);
            }
            Op::Track { gfn } => self.track(gfn, tlb),
            Op::Untrack { gfn } => self.untrack(gfn),
            Op::SlotAliased { id, gpa, pages, hva } => return self.slot_aliased(id, gpa, pages.into(), hva),
            Op::Backend(_) => {}
        }
        Exit::Done
    }

    fn walk(&self, gpa: Gpa) -> Option<Spte> {
        self.shadow_pages.walk(gpa)
    }

    fn walk_window(&self, gpa: Gpa, out: &mut [Option<Spte>]) {
        self.shadow_pages.walk_window(gpa, out);
    }

    fn inspect(&self, visit: &mut dyn FnMut(Keyed)) {
        for (gfn, at) in self.rmap.iter() {
            visit(Keyed::Rmap(gfn.raw(), self.shadow_pages.gpa_of(self.vm.stolen(), at)));
        }
        for &SpKey { gfn, alias, level } in self.shadow_pages.keys() {
            visit(Keyed::ShadowPage { gfn: gfn.raw(), alias, level });
        }
        for slot in self.slots.iter() {
            slot.dirty.iter().for_each(|page| visit(Keyed::DirtyLog(slot.gfn.add(page).raw())));
        }
    }

    fn shows(&self) -> Shows {
        Shows { tables: true, flushes: true, keys: true, native: true }
    }
}

impl<P: Policy> KvmMmu<P> {
    /// A guest access, with the fault it needs.
    fn access(&mut self, host: &Host, tlb: &mut FlushBackend, gpa: Gpa, access: Access) -> Exit {
        match self.access_up_to_map(host, gpa, access) {
            Ok(fault) => self.map_and_reenter(host, tlb, &fault, access),
            Err(exit) => exit,
        }
    }

    /// What the processor does: walk, and fault if the walk does not allow the access. Everything before the lock; an
    /// access that ends without a mapping has its exit.
    fn access_up_to_map(&mut self, host: &Host, gpa: Gpa, access: Access) -> Result<PageFault, Exit> {
        if let Some(exit) = self.hardware_walk(gpa, access) {
            return Err(exit);
        }
        match self.fault_in(host, gpa, access) {
            FaultIn::Emulate => Err(Exit::Mmio(gpa)),
            FaultIn::Retry => Err(Exit::Retry),
            FaultIn::Write(pfn) => Err(Exit::Emulated(pfn)),
            FaultIn::Fixed => Err(self.reenter(gpa, access)),
            FaultIn::Map(fault) => Ok(fault),
        }
    }

    /// A page walk by the processor, which sets the accessed bit and, on a write, the dirty bit; `None` if it faults. An MMIO entry exits without a
    /// look at the memslots, as long as they are those it was made for.
    fn hardware_walk(&mut self, gpa: Gpa, access: Access) -> Option<Exit> {
        let at = self.shadow_pages.leaf(gpa)?;
        let entry = self.shadow_pages.get(at);
        if let Some(generation) = entry.mmio_generation() {
            let current = P::mmio_is_current(generation, self.slots.generation(), self.slots.in_flux());
            return current.then_some(Exit::Mmio(gpa));
        }
        if !entry.rights().contains(Rights::needed(access)) {
            return None;
        }
        let mut walked = entry.accessed();
        if access == Access::Write && !entry.is_dirty() {
            walked = walked.dirtied();
            self.log_write(gpa);
        }
        self.shadow_pages.set(at, walked);
        Some(Exit::Memory(entry.pfn()))
    }

    /// The guest goes on after its fault was fixed; if it was fixed elsewhere it will only fault again.
    fn reenter(&mut self, gpa: Gpa, access: Access) -> Exit {
        self.hardware_walk(gpa, access).unwrap_or(Exit::Retry)
    }

    fn map_and_reenter(&mut self, host: &Host, tlb: &mut FlushBackend, fault: &PageFault, access: Access) -> Exit {
        match self.map(host, tlb, fault) {
            Resolved::Fixed => self.reenter(fault.gpa(), access),
            Resolved::Write => Exit::Emulated(fault.pfn()),
            Resolved::Retry => Exit::Retry,
        }
    }

    fn fault_begin(&mut self, host: &Host, vcpu: u8, gpa: Gpa, access: Access) -> Exit {
        match self.access_up_to_map(host, gpa, access) {
            Ok(fault) => {
                self.faults[usize::from(vcpu)] = Some((fault, access));
                Exit::Pending
            }
            Err(exit) => exit,
        }
    }

    /// Map `gpa` without an access (`kvm_arch_vcpu_pre_fault_memory()`). What is present stays as it is.
    fn prefault(&mut self, host: &Host, tlb: &mut FlushBackend, gpa: Gpa) -> Exit {
        let gpa = P::prefaulted(self.vm.stolen(), gpa);
        if self.shadow_pages.walk(gpa).is_some() {
            return Exit::Done;
        }
        match self.fault_in(host, gpa, Access::Read) {
            FaultIn::Emulate => Exit::NotFound,
            FaultIn::Retry => Exit::Retry,
            FaultIn::Fixed | FaultIn::Write(_) => Exit::Done,
            FaultIn::Map(fault) => match self.map(host, tlb, &fault) {
                Resolved::Fixed | Resolved::Write => Exit::Done,
                Resolved::Retry => Exit::Retry,
            },
        }
    }

    fn fault_end(&mut self, host: &Host, tlb: &mut FlushBackend, vcpu: u8) -> Exit {
        match self.faults[usize::from(vcpu)].take() {
            Some((fault, access)) => self.map_and_reenter(host, tlb, &fault, access),
            None => Exit::Error,
        }
    }

    /// `invalidate_range_start`: nothing maps the pages when this returns, and nothing will until the end.
    fn invalidate_begin(&mut self, range: HvaRange, tlb: &mut FlushBackend) {
        self.notifier.begin(range);
        let mut owed = FlushOwed::nothing();
        for gfn in self.gfns_of(range) {
            self.zap_gfn(gfn, &mut owed);
        }
        owed.all::<P>(tlb);
    }

    fn age(&mut self, range: HvaRange) -> bool {
        // Every gfn is aged, also after the first young one.
        self.gfns_of(range).into_iter().fold(false, |young, gfn| young | self.age_gfn(gfn))
    }

    /// Every gfn that a page of `range` backs, in any slot.
    fn gfns_of(&self, range: HvaRange) -> smallvec::SmallVec<[Gfn; 16]> {
        let slots = self.slots.iter().filter(|slot| P::invalidates(slot.id));
        slots.flat_map(|slot| slot.gfns_of(range)).collect()
    }

    fn dirty_frames(&self, id: SlotId) -> FrameSet {
        let Some(slot) = self.slots.get(id) else { return FrameSet::EMPTY };
        let frames = slot.dirty.iter().map(|page| self.vm.frames(slot.gfn.add(page), 1));
        frames.fold(FrameSet::EMPTY, FrameSet::union)
    }

    /// The first half of a memslot change (`kvm_invalidate_memslot()`, or the swap of a flags-only change).
    fn slot_begin(&mut self, id: SlotId, change: SlotChange, tlb: &mut FlushBackend) {
        self.slot_change = Some((id, change));
        self.slots_changed(true);
        let Some(slot) = self.slots.get_mut(id) else { return };
        match change {
            SlotChange::Create { .. } => {}
            SlotChange::Flags(flags) if flags.readonly == slot.flags.readonly => {
                slot.flags = flags;
                slot.dirty = PageBitmap::new(if flags.log_dirty { slot.pages } else { 0 });
            }
            SlotChange::Delete | SlotChange::Move { .. } | SlotChange::Flags(_) => {
                slot.invalid = true;
                let mut owed = FlushOwed::nothing();
                if P::zaps_for(&change) {
                    for gfn in slot.gfns() {
                        self.zap_gfn(gfn, &mut owed);
                    }
                }
                owed.all::<P>(tlb);
            }
        }
    }

    /// User space asks for a slot whose gfn carries a stolen bit. Nobody could reach it, and it would hide behind another.
    fn slot_aliased(&mut self, id: SlotId, gpa: Gpa, pages: u64, hva: Hva) -> Exit {
        if P::refuses_aliased_slots() {
            return Exit::Refused;
        }
        self.slots_changed(false);
        let (dirty, tracked, gfn) = (PageBitmap::new(0), PageBitmap::new(pages), Gfn::new(gpa.page()));
        self.slots.insert(Memslot { id, gfn, pages, hva, flags: SlotFlags::default(), invalid: false, dirty, tracked });
        Exit::Done
    }

    /// New memslots, new generation; when the number wraps, MMIO entries of an older round must not come back to life
    /// (`kvm_mmu_invalidate_mmio_sptes()`).
    fn slots_changed(&mut self, in_flux: bool) {
        if self.slots.next_generation(in_flux) && P::drops_mmio_on_wrap() {
            self.shadow_pages.drop_mmio();
        }
    }

    /// The second half (`kvm_commit_memory_region()`).
    fn slot_end(&mut self, tlb: &mut FlushBackend) {
        let Some((id, change)) = self.slot_change.take() else { return };
        self.slots_changed(false);
        match (change, self.slots.get_mut(id)) {
            (SlotChange::Create { gfn, pages, hva, flags }, _) => {
                let pages = u64::from(pages);
                let dirty = PageBitmap::new(if flags.log_dirty { pages } else { 0 });
                let tracked = PageBitmap::new(pages);
                self.slots.insert(Memslot { id, gfn, pages, hva, flags, invalid: false, dirty, tracked });
            }
            (SlotChange::Delete, _) => self.slots.remove(id),
            (SlotChange::Move { gfn }, Some(slot)) => {
                slot.gfn = gfn;
                slot.invalid = false;
                slot.tracked = PageBitmap::new(slot.pages);
            }
            (SlotChange::Flags(flags), Some(slot)) if slot.invalid => {
                slot.flags = flags;
                slot.dirty = PageBitmap::new(if flags.log_dirty { slot.pages } else { 0 });
                slot.tracked = PageBitmap::new(slot.pages);
                slot.invalid = false;
            }
            (SlotChange::Flags(flags), _) if flags.log_dirty => self.expect_writes_to_slot(id, tlb),
            (SlotChange::Move { .. } | SlotChange::Flags(_), _) => {}
        }
    }
}
