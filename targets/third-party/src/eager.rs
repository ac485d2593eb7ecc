//! [`Eager`]: a hypervisor that maps a memslot as a whole when it is created, over whatever [`Tables`] there are.
//!
//! It is as plain as a correct one can be. What the host takes away is unmapped under every alias, and mapped again, alone, by the
//! next access; where writes are logged nothing is writable before it was written. Where a crate does not flush TLBs by itself, each op
//! ends with a flush of everything.

use crate::flushes;
use crate::housed::Housed;
use crate::memslots::{Memslots, SlotList};
use crate::tables::{Refused, Tables};
use gpa_model::limits::{ALIASES, SLOTS};
use gpa_model::{
    Access, Exit, FlushBackend, FrameSet, Gpa, Host, HostPage, HostPageRange, Level, Mmu, Op, Rights, SlotChange,
    SlotFlags, SlotId, Span, Spte, VmConfig,
};

/// The largest stride whose memslots can be mapped page by page in no time.
const STRIDE_MAX: u64 = VmConfig::STRIDE_2M;

#[derive(Clone, Copy)]
struct Slot {
    frame: usize,
    frames: usize,
    hva: HostPage,
    flags: SlotFlags,
}

impl Slot {
    fn frames(&self) -> FrameSet {
        FrameSet::range(self.frame, self.frames)
    }
}

/// A hypervisor over the tables `T` and the memslots `S`.
pub(crate) struct Eager<T: Tables, S = SlotList> {
    vm: VmConfig,
    memslots: S,
    slots: [Option<Slot>; SLOTS],
    /// Frames that are mapped under each alias.
    mapped: [FrameSet; ALIASES],
    dirty: FrameSet,
    /// The frames of the zap that has begun.
    zapping: FrameSet,
    /// The large leaves that a TLB may hold, where the crate flushes by itself.
    large: Vec<Span>,
    tables: Housed<T>,
}

impl<T: Tables, S: Memslots> Eager<T, S> {
    /// Before the first VM.
    pub(crate) fn new() -> Self {
        Self {
            vm: VmConfig::default(),
            memslots: S::default(),
            slots: [None; SLOTS],
            mapped: [FrameSet::EMPTY; ALIASES],
            dirty: FrameSet::EMPTY,
            zapping: FrameSet::EMPTY,
            large: Vec::new(),
            tables: Housed::empty(),
        }
    }

    fn change_slot(&mut self, host: &Host, id: SlotId, change: SlotChange) -> Result<(), Refused> {
        let old = self.slots[id.index()];
        let new = match (change, old) {
            (SlotChange::Create { gfn, pages, hva, flags }, _) => {
                self.vm.frame(gfn).map(|frame| Slot { frame, frames: self.vm.frames_in(pages.into()), hva, flags })
            }
            (SlotChange::Move { gfn }, Some(slot)) => self.vm.frame(gfn).map(|frame| Slot { frame, ..slot }),
            (SlotChange::Flags(flags), Some(slot)) => Some(Slot { flags, ..slot }),
            _ => None,
        };
        if let (SlotChange::Flags(flags), Some(slot)) = (change, old)
            && flags.readonly == slot.flags.readonly
        {
            self.slots[id.index()] = new;
            self.dirty = self.dirty.minus(slot.frames());
            return if flags.log_dirty { self.write_protect(slot.frames()) } else { Ok(()) };
        }
        let mut dirty = FrameSet::EMPTY;
        if let Some(slot) = old {
            self.memslots.remove(id);
            self.slots[id.index()] = None;
            if let (SlotChange::Move { .. }, Some(new)) = (change, new) {
                dirty = self.dirty.intersect(slot.frames()).moved(slot.frame, new.frame);
            }
            self.dirty = self.dirty.minus(slot.frames());
            self.zap(slot.frames())?;
        }
        if let Some(slot) = new {
            self.memslots.insert(id, self.vm.gfn(slot.frame), self.vm.pages_of(slot.frames));
            self.slots[id.index()] = new;
            self.dirty = self.dirty.union(dirty);
            let aliases = if id.is_internal() { 1 } else { self.vm.stolen().alias_count() };
            let rights = if slot.flags == SlotFlags::default() { Rights::RWX } else { Rights::RX };
            (0..aliases).try_for_each(|alias| self.map(host, &slot, slot.frames(), alias, rights))?;
        }
        Ok(())
    }

    /// Map frames of `slot`, in as few pieces as there are in the host.
    fn map(&mut self, host: &Host, slot: &Slot, frames: FrameSet, alias: usize, rights: Rights) -> Result<(), Refused> {
        let pfn = |frame: usize| host.pfn(slot.hva.add(self.vm.pages_of(frame - slot.frame)));
        let mut left = frames;
        while let Some(first) = left.first() {
            let follows =
                |n: &usize| left.contains(first + n) && pfn(first + n) == pfn(first).add(self.vm.pages_of(*n));
            let run = 1 + (1..slot.frames).take_while(|n| first + n < slot.frame + slot.frames && follows(n)).count();
            let (gpa, pages) = (self.vm.gpa(first, alias), self.vm.pages_of(run));
            self.tables.change(|tables| tables.map(gpa, pfn(first), pages, rights))?;
            left = left.minus(FrameSet::range(first, run));
        }
        self.mapped[alias] = self.mapped[alias].union(frames);
        Ok(())
    }

    /// Nothing maps `frames` any more, under any alias.
    fn zap(&mut self, frames: FrameSet) -> Result<(), Refused> {
        self.each_run(frames, T::unmap)?;
        self.mapped.iter_mut().for_each(|mapped| *mapped = mapped.minus(frames));
        Ok(())
    }

    fn write_protect(&mut self, frames: FrameSet) -> Result<(), Refused> {
        self.each_run(frames, |tables, gpa, pages| tables.protect(gpa, pages, Rights::RX))
    }

    /// Change each run of neighbours among `frames`, under each alias; with the holes in it, if the tables take that.
    fn each_run(
        &mut self,
        frames: FrameSet,
        change: impl Fn(&mut T, Gpa, u64) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        for alias in 0..self.vm.stolen().alias_count() {
            let mut left = if T::HOLES { frames } else { frames.intersect(self.mapped[alias]) };
            while let Some(first) = left.first() {
                let run = (left.bits() >> first).trailing_ones() as usize;
                let (gpa, pages) = (self.vm.gpa(first, alias), self.vm.pages_of(run));
                self.tables.change(|tables| change(tables, gpa, pages))?;
                left = left.minus(FrameSet::range(first, run));
            }
        }
        Ok(())
    }

    fn access(&mut self, host: &Host, gpa: Gpa, access: Access) -> Result<Exit, Refused> {
        let (gfn, alias) = self.vm.stolen().split(gpa);
        let Some((id, slot)) = self.memslots.find(gfn).and_then(|(id, _)| Some((id, self.slots[id.index()]?))) else {
            return Ok(Exit::Mmio(gpa));
        };
        let writes = access == Access::Write;
        let (Some(frame), false) = (self.vm.frame(gfn), id.is_internal() && !alias.is_none()) else {
            return Ok(Exit::Mmio(gpa));
        };
        if writes && slot.flags.readonly {
            return Ok(Exit::Mmio(gpa));
        }
        let found = self.walk(gpa);
        if !found.is_some_and(|spte| spte.rights().contains(Rights::needed(access))) {
            let one = FrameSet::one(frame);
            let writable = !slot.flags.readonly && (writes || !slot.flags.log_dirty);
            let rights = if writable { Rights::RWX } else { Rights::RX };
            if slot.flags.log_dirty && writes {
                self.dirty = self.dirty.union(one);
            }
            let alias = self.vm.stolen().alias_index(alias);
            if found.is_some() {
                let (gpa, pages) = (self.vm.gpa(frame, alias), self.vm.pages_of(1));
                self.tables.change(|tables| tables.protect(gpa, pages, rights))?;
            } else {
                self.map(host, &slot, one, alias, rights)?;
            }
        }
        let found = self.walk(gpa).filter(|spte| spte.rights().contains(Rights::needed(access)));
        Ok(found.map_or(Exit::Error, |spte| Exit::Memory(spte.pfn())))
    }

    /// The frames that any page of `range` backs.
    fn frames_of(&self, range: HostPageRange) -> FrameSet {
        let backed = |slot: &Slot| {
            let behind = |frame: &usize| range.contains(slot.hva.add(self.vm.pages_of(frame - slot.frame)));
            (slot.frame..slot.frame + slot.frames)
                .filter(behind)
                .fold(FrameSet::EMPTY, |set, frame| set.union(FrameSet::one(frame)))
        };
        self.slots.iter().flatten().map(backed).fold(FrameSet::EMPTY, FrameSet::union)
    }

    /// A TLB may hold what the tables have now.
    fn note_large(&mut self) {
        for alias in 0..self.vm.stolen().alias_count() {
            for frame in self.mapped[alias].iter() {
                let gpa = self.vm.gpa(frame, alias);
                let level = self.walk(gpa).map_or(Level::Page4K, Spte::level);
                let leaf = Span::of_leaf(gpa, level);
                if level != Level::Page4K && !self.large.contains(&leaf) {
                    self.large.push(leaf);
                }
            }
        }
    }

    fn carry_out(&mut self, host: &Host, op: &Op) -> Result<Exit, Refused> {
        match *op {
            Op::Access { gpa, access, .. } => return self.access(host, gpa, access),
            Op::Slot { id, change } => self.change_slot(host, id, change)?,
            Op::Unmap { range, .. } | Op::Collapse { range } => self.zap(self.frames_of(range))?,
            Op::WriteProtect { gfn } => self.write_protect(self.vm.frames(gfn, 1))?,
            Op::DirtyGet { id } => {
                let frames = self.slots[id.index()].map_or(FrameSet::EMPTY, |slot| slot.frames());
                return Ok(Exit::Dirty(self.dirty.intersect(frames)));
            }
            Op::DirtyClear { gfn, pages, .. } => {
                let frames = self.vm.frames(gfn, pages.into());
                self.dirty = self.dirty.minus(frames);
                self.write_protect(frames)?;
            }
            Op::ZapBegin { gfn, pages, .. } => {
                self.zapping = self.vm.frames(gfn, pages.into());
                self.zap(self.zapping)?;
            }
            Op::ZapEnd => self.zap(self.zapping)?,
            Op::MmuPages { .. } => self.tables.change(T::compact),
            Op::Backend(_) => {}
            _ => return Ok(Exit::Unsupported),
        }
        Ok(Exit::Done)
    }
}

impl<T: Tables, S: Memslots> Mmu for Eager<T, S> {
    fn reset(&mut self, vm: &VmConfig) {
        self.tables.renew(T::new);
        self.vm = *vm;
        self.memslots = S::default();
        self.slots = [None; SLOTS];
        self.mapped = [FrameSet::EMPTY; ALIASES];
        (self.dirty, self.zapping) = (FrameSet::EMPTY, FrameSet::EMPTY);
        self.large.clear();
    }

    fn step(&mut self, host: &Host, flush: &mut FlushBackend, op: &Op) -> Exit {
        flushes::forget();
        let exit = self.carry_out(host, op);
        if T::FLUSHES {
            flushes::tell(flush, &mut self.large);
            self.note_large();
        } else if !matches!(op, Op::DirtyGet { .. } | Op::Backend(_)) {
            flush.all();
        }
        exit.unwrap_or(Exit::Error)
    }

    fn walk(&self, gpa: Gpa) -> Option<Spte> {
        self.tables.look(|tables| tables.find(gpa))
    }

    fn walk_window(&self, gpa: Gpa, stride: u64, visit: &mut dyn FnMut(usize, Spte)) {
        self.tables.look(|tables| {
            let found = |frame: usize| Some((frame, tables.find(gpa.add_pages(frame as u64 * stride))?));
            (0..gpa_model::limits::FRAMES).filter_map(found).for_each(|(frame, spte)| visit(frame, spte));
        });
    }

    /// Ops in one piece.
    fn supports(&self, op: &Op) -> bool {
        let memory = matches!(op, Op::Slot { .. } | Op::Access { .. } | Op::Unmap { .. } | Op::Collapse { .. });
        let log = matches!(op, Op::WriteProtect { .. } | Op::DirtyGet { .. } | Op::DirtyClear { .. });
        memory || log || matches!(op, Op::ZapBegin { .. } | Op::ZapEnd | Op::MmuPages { .. } | Op::Backend(_))
    }

    fn supports_vm(&self, vm: &VmConfig) -> bool {
        let translated = vm.stolen().bits().iter().all(|&bit| bit < T::GPA_BITS);
        translated
            && vm.stride() <= STRIDE_MAX
            && vm.dirty_ring().is_none()
            && !vm.nx_huge_pages()
            && !vm.shared_private()
    }
}
