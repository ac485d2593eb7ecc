//! The memslots of a program on KVM. Each takes as many KVM memslots as its [`AliasMethod`] says, all over the same host pages.
//!
//! Stock KVM strips nothing from a GPA, so a second memslot at `gpa | bit` makes an alias. The guest gets the promise of
//! GPA aliasing: every name of a frame leads to that frame. The dirty log of a memslot is the union of its KVM memslots' logs.

mod private_memory;

use crate::error::{Doing, MachineError};
use crate::host::memory::Pages;
use crate::kvm::alias_method::AliasMethod;
use crate::kvm::guest_memfd::{self, GuestMemfd};
use crate::kvm::ioctl::{Region, RegionChange, clear_dirty_log, delete_region, reset_dirty_rings, set_region};
use crate::kvm::ring::Ring;
use gpa_model::limits::{ALIASES, FRAMES, USER_SLOTS};
use gpa_model::{FrameSet, Gfn, Gpa, HostPage, SlotChange, SlotFlags, SlotId, VmConfig};
use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY};
use kvm_ioctls::VmFd;

/// KVM memslots of programs have numbers below this one.
pub(crate) const KVM_SLOTS: u32 = (USER_SLOTS * ALIASES) as u32;

#[derive(Clone, Copy, Debug)]
struct Slot {
    gfn: Gfn,
    pages: u32,
    hva: HostPage,
    flags: SlotFlags,
}

/// The memslots that exist now.
#[derive(Debug, Default)]
pub(crate) struct Memslots {
    slots: [Option<Slot>; USER_SLOTS],
    /// The guest_memfd of each memslot that has one.
    guest_memfds: [Option<GuestMemfd>; USER_SLOTS],
    /// Frames that are shared although their memslot has a guest_memfd.
    shared: FrameSet,
    /// Frames that a program made private before they had a memslot.
    private: FrameSet,
    alias_method: AliasMethod,
    /// How many KVM memslots each memslot takes.
    each: usize,
    /// The dirty rings of all vCPUs; empty without dirty rings.
    rings: Vec<Ring>,
    /// What was taken from the rings: a bit for each page of each memslot.
    taken: [u64; USER_SLOTS],
}

/// The state of a memslot after a change that has begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Changed {
    id: SlotId,
    new: Option<Slot>,
}

/// The VM to configure, and the host pages behind its memslots.
#[derive(Clone, Copy)]
pub(crate) struct Backing<'a> {
    pub(crate) fd: &'a VmFd,
    pub(crate) memory: &'a Pages,
    pub(crate) vm: &'a VmConfig,
}

impl Memslots {
    /// Takes dirty pages from `rings` instead of bitmaps.
    pub(crate) fn use_rings(&mut self, rings: Vec<Ring>) {
        self.rings = rings;
    }

    /// Takes all entries from the rings.
    fn take(&mut self) {
        for ring in &mut self.rings {
            ring.take(|slot, page| {
                // Entries of other memslots are those that used up a ring; pages beyond a memslot's end do not
                // occur.
                if let (Some(bits), Some(bit)) =
                    (self.taken.get_mut(slot as usize / ALIASES), 1u64.checked_shl(page as u32))
                {
                    *bits |= bit;
                }
            });
        }
    }

    /// Starts a VM like `vm`, whose aliases `alias_method` makes. No memslots may be left.
    pub(crate) fn begin(&mut self, vm: &VmConfig, alias_method: AliasMethod) {
        self.alias_method = alias_method;
        self.each = alias_method.slots(vm);
        (self.shared, self.private) = (FrameSet::EMPTY, FrameSet::EMPTY);
    }

    /// Makes a change that the model accepts.
    pub(crate) fn change(&mut self, kvm: Backing<'_>, id: SlotId, change: SlotChange) -> Result<(), MachineError> {
        let old = self.slots[id.index()];
        self.take();
        if !matches!(change, SlotChange::Move { .. }) {
            self.taken[id.index()] = 0;
        }
        let new = match (change, old) {
            (SlotChange::Create { gfn, pages, hva, flags }, _) => Some(Slot { gfn, pages, hva, flags }),
            (SlotChange::Delete, _) | (_, None) => None,
            (SlotChange::Move { gfn }, Some(old)) => Some(Slot { gfn, ..old }),
            (SlotChange::Flags(flags), Some(old)) => Some(Slot { flags, ..old }),
        };
        // KVM refuses to change the read-only flag, or any memslot with a guest_memfd: such a memslot is
        // deleted and created.
        let has_guest_memfd = |slot: &Slot| self.has_guest_memfd(slot);
        let again = old.zip(new).is_some_and(|(old, new)| {
            old.flags.readonly != new.flags.readonly || has_guest_memfd(&old) || has_guest_memfd(&new)
        });
        if old.is_some() && (new.is_none() || again) {
            // The guest_memfd moves with its memslot.
            let kept = self.guest_memfds[id.index()].take();
            self.delete(kvm.fd, id.index())?;
            self.guest_memfds[id.index()] = kept.filter(|_| new.is_some_and(|new| self.has_guest_memfd(&new)));
        }
        if self.alias_method == AliasMethod::SwProtected
            && let Some(new) = new
        {
            self.set_with_guest_memfd(kvm, id, &new)?;
        } else if let Some(new) = new {
            for alias in 0..self.each {
                set_region(kvm.fd, kvm.memory, region(kvm.vm, self.alias_method, id.index(), alias, &new))
                    .doing("set a memslot")?;
            }
        }
        self.slots[id.index()] = new;
        Ok(())
    }

    /// Begins a deletion or a move that the model accepts, where a memslot is one KVM memslot. Removes the
    /// memslot here, and returns the ioctl that makes the change and the argument of [`Memslots::end_change`].
    pub(crate) fn begin_change(&mut self, kvm: Backing<'_>, id: SlotId, change: SlotChange) -> (RegionChange, Changed) {
        let old = self.slots[id.index()].take();
        let new = match (change, old) {
            (SlotChange::Move { gfn }, Some(old)) => Some(Slot { gfn, ..old }),
            _ => None,
        };
        let ioctl = match &new {
            Some(new) => RegionChange::set(kvm.memory, region(kvm.vm, self.alias_method, id.index(), 0, new)),
            None => RegionChange::delete(kvm_slot(self.alias_method, id.index(), 0)),
        };
        (ioctl, Changed { id, new })
    }

    /// Ends a change: the ioctl has returned.
    pub(crate) fn end_change(&mut self, changed: Changed) {
        self.slots[changed.id.index()] = changed.new;
    }

    /// Asks for a memslot at a GPA that may carry stolen bits, and returns whether KVM accepts it. Deletes it
    /// at once.
    pub(crate) fn try_at(
        &self,
        kvm: Backing<'_>,
        id: SlotId,
        gpa: Gpa,
        pages: u32,
        hva: HostPage,
    ) -> Result<bool, MachineError> {
        let slot = kvm_slot(self.alias_method, id.index(), 0);
        let region = Region { slot, flags: 0, gpa, mapping: 0, page: hva.page() as usize, pages: pages as usize };
        match set_region(kvm.fd, kvm.memory, region) {
            Ok(()) => delete_region(kvm.fd, slot).doing("delete a memslot").map(|()| true),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            Err(error) => Err(error).doing("set a memslot under an alias"),
        }
    }

    /// Deletes every memslot.
    pub(crate) fn clear(&mut self, fd: &VmFd) -> Result<(), MachineError> {
        (0..USER_SLOTS).try_for_each(|id| self.delete(fd, id))?;
        if !self.rings.is_empty() {
            self.take();
            self.taken = [0; USER_SLOTS];
            reset_dirty_rings(fd).doing("reset the dirty rings")?;
        }
        Ok(())
    }

    fn delete(&mut self, fd: &VmFd, id: usize) -> Result<(), MachineError> {
        let Some(slot) = self.slots[id] else { return Ok(()) };
        for alias in 0..self.each {
            delete_region(fd, kvm_slot(self.alias_method, id, alias)).doing("delete a memslot")?;
        }
        if self.has_guest_memfd(&slot) {
            // A private gfn without a memslot is not a hole to KVM.
            let gpa = Gpa::from_page(slot.gfn.raw());
            guest_memfd::set_private(fd, gpa, slot.pages as usize, false).doing("make memory shared again")?;
        }
        (self.slots[id], self.guest_memfds[id]) = (None, None);
        Ok(())
    }

    /// Deletes all memslots that may exist after a failed change.
    pub(crate) fn scrub(&mut self, fd: &VmFd) {
        for slot in 0..KVM_SLOTS {
            for space in self.alias_method.address_spaces() {
                // Most do not exist, and KVM returns an error for those.
                let _ = delete_region(fd, space.slot(slot));
            }
        }
        self.slots = [None; USER_SLOTS];
        self.guest_memfds = Default::default();
    }

    /// The host page behind `frame`.
    pub(crate) fn host_page(&self, vm: &VmConfig, frame: usize) -> Option<usize> {
        self.slots.iter().flatten().find_map(|slot| {
            let offset = vm.gfn(frame).offset_from(slot.gfn).filter(|&offset| offset < slot.pages.into())?;
            Some(slot.hva.add(offset).page() as usize)
        })
    }

    /// The frames of memslot `id` that are dirty under any name.
    pub(crate) fn dirty(&mut self, kvm: Backing<'_>, id: SlotId) -> Result<FrameSet, MachineError> {
        self.take();
        let Some(slot) = &self.slots[id.index()] else { return Ok(FrameSet::EMPTY) };
        let bytes = slot.pages as usize * crate::host::memory::PAGE_BYTES;
        let mut bits = self.taken[id.index()];
        let logs = if self.rings.is_empty() { self.each } else { 0 };
        for alias in 0..logs {
            let slot = kvm_slot(self.alias_method, id.index(), alias);
            let log = kvm.fd.get_dirty_log(slot, bytes).doing("get a dirty log")?;
            bits |= log.first().copied().unwrap_or(0);
        }
        let first = kvm.vm.frame(slot.gfn).unwrap_or(0);
        let inside = FrameSet::range(0, slot.pages as usize);
        Ok(FrameSet::from_bits(bits).intersect(inside).moved(0, first))
    }

    /// Clears the dirty log of `pages` frames from `gfn`, which lie in memslot `id`, under every name.
    pub(crate) fn clear_dirty(
        &mut self,
        kvm: Backing<'_>,
        id: SlotId,
        gfn: Gfn,
        pages: u32,
    ) -> Result<(), MachineError> {
        let Some(slot) = self.slots[id.index()] else { return Ok(()) };
        let skip = gfn.offset_from(slot.gfn).unwrap_or(0) as usize;
        let bits = FrameSet::range(skip, pages as usize).bits();
        if !self.rings.is_empty() {
            self.take();
            self.taken[id.index()] &= !bits;
            return reset_dirty_rings(kvm.fd).doing("reset the dirty rings");
        }
        for alias in 0..self.each {
            let log = kvm_slot(self.alias_method, id.index(), alias);
            clear_dirty_log(kvm.fd, log, slot.pages, bits).doing("clear a dirty log")?;
        }
        Ok(())
    }
}

const _: () = assert!(FRAMES <= u64::BITS as usize);

fn kvm_slot(alias_method: AliasMethod, id: usize, alias: usize) -> u32 {
    alias_method.address_space(alias).slot((id * ALIASES + alias) as u32)
}

fn region(vm: &VmConfig, alias_method: AliasMethod, id: usize, alias: usize, slot: &Slot) -> Region {
    let stolen = vm.stolen();
    let mut flags = 0;
    if slot.flags.readonly {
        flags |= KVM_MEM_READONLY;
    }
    if slot.flags.log_dirty {
        flags |= KVM_MEM_LOG_DIRTY_PAGES;
    }
    Region {
        slot: kvm_slot(alias_method, id, alias),
        flags,
        gpa: stolen.join(slot.gfn, stolen.alias(alias_method.alias_in_tables(alias))),
        mapping: alias % alias_method.mappings(),
        page: slot.hva.page() as usize,
        pages: slot.pages as usize,
    }
}
