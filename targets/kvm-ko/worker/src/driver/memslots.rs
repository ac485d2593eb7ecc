//! A program's memslots on KVM: each is as many KVM memslots as its [`AliasMethod`] takes, all over the same host pages. The dirty log of
//! a slot is the union of theirs.

use super::machine::{Machine, odd};
use super::{Stop, ioctl};
use gpa_model::limits::{ALIASES, FRAMES, SLOTS};
use gpa_model::{Exit, FrameSet, Gfn, HostPage, SlotChange, SlotFlags, SlotId, VmConfig};
use kvm_bindings::{
    KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, kvm_clear_dirty_log, kvm_dirty_log, kvm_userspace_memory_region,
};
use kvm_ko::AliasMethod;
use kvm_ko_worker::kernel::{Fd, Kernel, hva};

#[derive(Clone, Copy, Debug)]
struct Slot {
    gfn: Gfn,
    pages: u32,
    hva: HostPage,
    flags: SlotFlags,
}

/// The memslots of one program.
pub(super) struct Memslots {
    slots: [Option<Slot>; SLOTS],
    alias_method: AliasMethod,
    vm: VmConfig,
}

/// The id of the memslot that no program can name.
const ANCHOR: u32 = (SLOTS * ALIASES) as u32;
const PAGE_BYTES: u64 = gpa_model::Gpa::from_page(1).raw();

/// The number of KVM's memslot for one alias of slot `id`.
const fn number(id: SlotId, alias: usize) -> u32 {
    (id.index() * ALIASES + alias) as u32
}

impl Memslots {
    pub(super) fn new(vm: &VmConfig, alias_method: AliasMethod) -> Self {
        Self { slots: [None; SLOTS], alias_method, vm: *vm }
    }

    pub(super) fn set_anchor(&self, kernel: &Kernel, fd: Fd, gfn: u64, page: u64) -> Result<(), Stop> {
        let mut region = kvm_userspace_memory_region {
            slot: ANCHOR,
            flags: 0,
            guest_phys_addr: gfn * PAGE_BYTES,
            memory_size: PAGE_BYTES,
            userspace_addr: hva(page),
        };
        kernel.ioctl_with(fd, ioctl::SET_USER_MEMORY_REGION, &mut region).map_err(odd("set a memslot")).map(drop)
    }

    /// How many names a frame has in KVM.
    pub(super) fn names(&self) -> usize {
        self.alias_method.slots(&self.vm)
    }

    /// The aliases under which slot `id` is a memslot of its own: a private slot has its base name alone.
    fn aliases(&self, id: SlotId) -> usize {
        if id.is_internal() { 1 } else { self.alias_method.slots(&self.vm) }
    }

    /// The numbers that KVM's memslots have.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        let ids = (0..SLOTS as u8).filter_map(SlotId::new).filter(|id| self.slots[id.index()].is_some());
        ids.flat_map(|id| (0..self.aliases(id)).map(move |alias| number(id, alias)))
    }

    fn region(&self, id: SlotId, alias: usize, slot: Option<&Slot>) -> kvm_userspace_memory_region {
        let number = number(id, alias);
        let Some(slot) = slot else {
            return kvm_userspace_memory_region { slot: number, ..kvm_userspace_memory_region::default() };
        };
        let bit = |set: bool, flag: u32| if set { flag } else { 0 };
        let stolen = self.vm.stolen();
        kvm_userspace_memory_region {
            slot: number,
            flags: bit(slot.flags.log_dirty, KVM_MEM_LOG_DIRTY_PAGES) | bit(slot.flags.readonly, KVM_MEM_READONLY),
            guest_phys_addr: stolen.join(slot.gfn, stolen.alias(alias)).raw(),
            memory_size: u64::from(slot.pages) * PAGE_BYTES,
            userspace_addr: hva(slot.hva.page()),
        }
    }

    /// Have every memslot of `id` be as `slot`, or be gone.
    fn set(&self, kernel: &Kernel, fd: Fd, id: SlotId, slot: Option<&Slot>) -> Result<(), Stop> {
        for alias in 0..self.aliases(id) {
            let mut region = self.region(id, alias, slot);
            kernel.ioctl_with(fd, ioctl::SET_USER_MEMORY_REGION, &mut region).map_err(odd("set a memslot"))?;
        }
        Ok(())
    }
}

impl Machine {
    /// Carry out a change that the model accepts.
    pub(super) fn change_slot(&mut self, kernel: &Kernel, id: SlotId, change: SlotChange) -> Result<Exit, Stop> {
        let slots = &mut self.memslots;
        let old = slots.slots[id.index()];
        let new = match (change, old) {
            (SlotChange::Create { gfn, pages, hva, flags }, _) => Some(Slot { gfn, pages, hva, flags }),
            (SlotChange::Delete, _) | (_, None) => None,
            (SlotChange::Move { gfn }, Some(old)) => Some(Slot { gfn, ..old }),
            (SlotChange::Flags(flags), Some(old)) => Some(Slot { flags, ..old }),
        };
        // KVM does not let a memslot become read-only, or stop being it: it goes and comes back.
        let again = old.zip(new).is_some_and(|(old, new)| old.flags.readonly != new.flags.readonly);
        if new.is_none() || again {
            slots.set(kernel, self.fd, id, None)?;
        }
        if let Some(new) = &new {
            slots.set(kernel, self.fd, id, Some(new))?;
        }
        slots.slots[id.index()] = new;
        Ok(Exit::Done)
    }

    /// The frames of slot `id` that any of its memslots reports.
    pub(super) fn dirty_get(&mut self, kernel: &Kernel, id: SlotId) -> Result<Exit, Stop> {
        let slots = &self.memslots;
        let Some(slot) = slots.slots[id.index()] else { return Err(Stop::Odd("a log of no memslot".into())) };
        let first = self.vm.frame(slot.gfn).unwrap_or(0);
        let mut dirty = FrameSet::EMPTY;
        let mut bitmap = vec![0u64; (slot.pages as usize).div_ceil(64)];
        for alias in 0..slots.aliases(id) {
            let mut log = kvm_dirty_log { slot: number(id, alias), ..kvm_dirty_log::default() };
            log.__bindgen_anon_1.dirty_bitmap = bitmap.as_mut_ptr().cast();
            kernel.ioctl_with(self.fd, ioctl::GET_DIRTY_LOG, &mut log).map_err(odd("get a dirty log"))?;
            for frame in first..FRAMES.min(first + self.vm.frames_in(slot.pages.into())) {
                let page = self.vm.pages_of(frame - first);
                let block = page..(page + self.vm.stride()).min(slot.pages.into());
                if block.into_iter().any(|page| bitmap[page as usize / 64] >> (page % 64) & 1 != 0) {
                    dirty = dirty.union(FrameSet::one(frame));
                }
            }
        }
        Ok(Exit::Dirty(dirty))
    }

    /// Clear the log of some pages of slot `id`, in each of its memslots.
    pub(super) fn dirty_clear(&mut self, kernel: &Kernel, id: SlotId, gfn: Gfn, pages: u32) -> Result<Exit, Stop> {
        let slots = &self.memslots;
        let Some(slot) = slots.slots[id.index()] else { return Err(Stop::Odd("a log of no memslot".into())) };
        let from = gfn.offset_from(slot.gfn).unwrap_or(0);
        let to = (from + u64::from(pages)).min(slot.pages.into());
        // A request begins and ends at multiples of 64, or at the end of the memslot (`kvm_clear_dirty_log_protect()`).
        let (start, end) = (from & !63, to.next_multiple_of(64).min(slot.pages.into()));
        let mut bitmap = vec![0u64; (end - start).div_ceil(64) as usize];
        for page in from - start..to - start {
            bitmap[page as usize / 64] |= 1 << (page % 64);
        }
        for alias in 0..slots.aliases(id) {
            let mut log = kvm_clear_dirty_log {
                slot: number(id, alias),
                num_pages: (end - start) as u32,
                first_page: start,
                ..kvm_clear_dirty_log::default()
            };
            log.__bindgen_anon_1.dirty_bitmap = bitmap.as_mut_ptr().cast();
            kernel.ioctl_with(self.fd, ioctl::CLEAR_DIRTY_LOG, &mut log).map_err(odd("clear a dirty log"))?;
        }
        Ok(Exit::Done)
    }
}
