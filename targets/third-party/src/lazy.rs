//! [`Lazy`]: a hypervisor over tables whose memory the crate allocates itself, page by page, when the guest faults.
//!
//! Which page of the host is behind a frame is then for the crate to say, at the first access; from there on it must stay that
//! page until the memslot goes or the host takes the page away. So a page that the crate allocated is given the name of the
//! host's page behind the frame it was first seen at, and a page without a name is one that took the place of another.

use crate::housed::Housed;
use crate::memslots::{Memslots, SlotList};
use crate::tables::Refused;
use gpa_model::limits::{FRAMES, SLOTS, VCPUS};
use gpa_model::{
    Access, Exit, FlushBackend, FrameSet, Gpa, Host, HostPage, HostPageRange, Mmu, Op, Pfn, Rights, SlotChange,
    SlotFlags, SlotId, Spte, VmConfig,
};
use std::collections::BTreeMap;

/// Second-stage tables that allocate the guest's memory. Ranges are whole pages, and are not empty.
pub(crate) trait LazyTables {
    /// With nothing mapped.
    fn new() -> Self;

    /// The range is memory from now on, to be allocated when it is accessed.
    fn reserve(&mut self, gpa: Gpa, pages: u64, rights: Rights) -> Result<(), Refused>;

    /// It is no memory any more.
    fn release(&mut self, gpa: Gpa, pages: u64) -> Result<(), Refused>;

    /// A vCPU has faulted. Whether it may go on.
    fn fault(&mut self, gpa: Gpa, access: Access) -> bool;

    /// What maps `gpa`.
    fn find(&self, gpa: Gpa) -> Option<Spte>;
}

#[derive(Clone, Copy)]
struct Slot {
    frame: usize,
    frames: usize,
    hva: HostPage,
    rights: Rights,
}

impl Slot {
    fn frames(&self) -> FrameSet {
        FrameSet::range(self.frame, self.frames)
    }

    fn hva(&self, frame: usize) -> HostPage {
        self.hva.add((frame - self.frame) as u64)
    }

    fn overlaps(&self, range: &HostPageRange) -> bool {
        range.overlaps(&HostPageRange { start: self.hva, pages: self.frames as u32 })
    }
}

/// A hypervisor over the tables `T`.
pub(crate) struct Lazy<T> {
    vm: VmConfig,
    memslots: SlotList,
    slots: [Option<Slot>; SLOTS],
    /// Accesses whose fault has begun and not ended.
    faults: [Option<(Gpa, Access)>; VCPUS],
    /// The host's page that each of the crate's pages is.
    names: BTreeMap<Pfn, Pfn>,
    tables: Housed<T>,
}

/// Above every page of the host: a page of the crate that is none of them.
const NAMELESS: u32 = 1 << 31;

impl<T: LazyTables> Lazy<T> {
    /// Before the first VM.
    pub(crate) fn new() -> Self {
        Self {
            vm: VmConfig::default(),
            memslots: SlotList::default(),
            slots: [None; SLOTS],
            faults: [None; VCPUS],
            names: BTreeMap::new(),
            tables: Housed::empty(),
        }
    }

    fn slot(&self, gpa: Gpa) -> Option<(usize, Slot)> {
        let (gfn, _) = self.vm.stolen().split(gpa);
        let (id, _) = self.memslots.find(gfn)?;
        Some((self.vm.frame(gfn)?, self.slots[id.index()]?))
    }

    /// Where a vCPU is after its access was carried out, or before it faults.
    fn mapped(&self, gpa: Gpa, access: Access) -> Option<Spte> {
        self.walk(gpa).filter(|spte| spte.rights().contains(Rights::needed(access)))
    }

    fn fault(&mut self, host: &Host, gpa: Gpa, access: Access) -> Exit {
        let Some((frame, slot)) = self.slot(gpa) else { return Exit::Mmio(gpa) };
        if !slot.rights.contains(Rights::needed(access)) {
            return Exit::Mmio(gpa);
        }
        let was_mapped = self.tables.look(|tables| tables.find(gpa)).is_some();
        if !self.tables.change(|tables| tables.fault(gpa, access)) {
            return Exit::Error;
        }
        if let Some(spte) = self.tables.look(|tables| tables.find(gpa))
            && !was_mapped
        {
            self.names.insert(spte.pfn(), host.pfn(slot.hva(frame)));
        }
        self.mapped(gpa, access).map_or(Exit::Error, |spte| Exit::Memory(spte.pfn()))
    }

    fn access(&mut self, host: &Host, gpa: Gpa, access: Access) -> Exit {
        match self.mapped(gpa, access) {
            Some(spte) => Exit::Memory(spte.pfn()),
            None => self.fault(host, gpa, access),
        }
    }

    /// What the guest holds in `frames` of a slot is gone.
    fn release(&mut self, frames: FrameSet) -> Result<(), Refused> {
        for frame in frames.iter() {
            if let Some(spte) = self.tables.look(|tables| tables.find(self.vm.gpa(frame, 0))) {
                self.names.remove(&spte.pfn());
            }
        }
        let Some(first) = frames.first() else { return Ok(()) };
        let gpa = self.vm.gpa(first, 0);
        self.tables.change(|tables| tables.release(gpa, frames.len() as u64))
    }

    /// The host takes pages away: they are memory again, but other memory.
    fn discard(&mut self, range: HostPageRange) -> Result<(), Refused> {
        for slot in self.slots.into_iter().flatten().filter(|slot| slot.overlaps(&range)) {
            let gone = slot.frames().iter().filter(|&frame| range.contains(slot.hva(frame)));
            let gone = gone.fold(FrameSet::EMPTY, |set, frame| set.union(FrameSet::one(frame)));
            self.release(gone)?;
            let Some(first) = gone.first() else { continue };
            let gpa = self.vm.gpa(first, 0);
            self.tables.change(|tables| tables.reserve(gpa, gone.len() as u64, slot.rights))?;
        }
        Ok(())
    }

    fn change_slot(&mut self, id: SlotId, change: SlotChange) -> Result<(), Refused> {
        match (change, self.slots[id.index()]) {
            (SlotChange::Create { gfn, pages, hva, flags }, _) => {
                let Some(frame) = self.vm.frame(gfn) else { return Ok(()) };
                let rights = if flags.readonly { Rights::RX } else { Rights::RWX };
                self.memslots.insert(id, gfn, pages.into());
                self.slots[id.index()] = Some(Slot { frame, frames: pages as usize, hva, rights });
                let gpa = self.vm.gpa(frame, 0);
                self.tables.change(|tables| tables.reserve(gpa, pages.into(), rights))
            }
            (SlotChange::Delete, Some(slot)) => {
                self.memslots.remove(id);
                self.slots[id.index()] = None;
                self.release(slot.frames())
            }
            _ => Ok(()),
        }
    }
}

impl<T: LazyTables> Mmu for Lazy<T> {
    fn reset(&mut self, vm: &VmConfig) {
        self.tables.renew(T::new);
        self.vm = *vm;
        self.memslots = SlotList::default();
        (self.slots, self.faults) = ([None; SLOTS], [None; VCPUS]);
        self.names.clear();
    }

    fn step(&mut self, host: &Host, flush: &mut FlushBackend, op: &Op) -> Exit {
        flush.all();
        let done = match *op {
            Op::Access { gpa, access, .. } => return self.access(host, gpa, access),
            Op::FaultBegin { vcpu, gpa, access } => match self.mapped(gpa, access) {
                Some(spte) => return Exit::Memory(spte.pfn()),
                None => {
                    self.faults[usize::from(vcpu)] = Some((gpa, access));
                    return Exit::Pending;
                }
            },
            Op::FaultEnd { vcpu } => match self.faults[usize::from(vcpu)].take() {
                Some((gpa, access)) => return self.fault(host, gpa, access),
                None => return Exit::Error,
            },
            Op::Slot { id, change } => self.change_slot(id, change),
            Op::Unmap { range, .. } => self.discard(range),
            Op::Backend(_) => Ok(()),
            _ => return Exit::Unsupported,
        };
        done.map_or(Exit::Error, |()| Exit::Done)
    }

    fn walk(&self, gpa: Gpa) -> Option<Spte> {
        let spte = self.tables.look(|tables| tables.find(gpa))?;
        let name = self.names.get(&spte.pfn()).copied();
        Spte::new(name.unwrap_or(Pfn::new(NAMELESS)), spte.rights())
    }

    /// Memory that is allocated belongs to one memslot, and does not move with it.
    fn supports(&self, op: &Op) -> bool {
        match *op {
            Op::Slot { id, change: SlotChange::Create { hva, pages, flags, .. } } => {
                let range = HostPageRange { start: hva, pages };
                let plain = SlotFlags { readonly: flags.readonly, log_dirty: false };
                !id.is_internal() && flags == plain && !self.slots.iter().flatten().any(|slot| slot.overlaps(&range))
            }
            Op::Slot { change: SlotChange::Delete, .. } => true,
            Op::Access { .. } | Op::FaultBegin { .. } | Op::FaultEnd { .. } | Op::Unmap { .. } | Op::Backend(_) => true,
            _ => false,
        }
    }

    fn supports_vm(&self, vm: &VmConfig) -> bool {
        vm.stolen().bits().is_empty() && vm.stride() == 1 && vm.dirty_ring().is_none() && !vm.shared_private()
    }
}

const _: () = assert!(FRAMES < NAMELESS as usize, "host pages are numbered from 0, and never as high");
