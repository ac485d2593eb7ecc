//! The reference model: from memslots and host mappings to what the guest is entitled to find at a GPA.
//!
//! It has no page table, no TLB and no locks. What it keeps beside the memslots is only what a program leaves open: the
//! memslot change, invalidations and faults in progress, the pages that vCPUs wait for, and what must or may stand in the dirty log.

use crate::addr::{Alias, Gfn, Gpa, HostPage, Level, Pfn};
use crate::allowed::Allowed;
use crate::async_pf::AsyncPf;
use crate::guest_access::StaleGpte;
use crate::host::Host;
use crate::limits::{DIRTY_RING_RESERVED, FRAMES, SLOTS, USER_SLOTS, VCPUS};
use crate::memory_attributes::{MemoryAttributes, divides};
use crate::mmu::{Exit, Fault, Rights};
use crate::op::{Access, HostPageRange, Op, SlotChange, SlotFlags, SlotId};
use crate::vm::{FrameSet, VmConfig};
use std::hash::{Hash, Hasher};

/// A memslot as the model knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    frame: u8,
    frames: u8,
    hva: HostPage,
    flags: SlotFlags,
    invalid: bool,
}

impl Slot {
    fn frames(&self) -> FrameSet {
        FrameSet::range(self.frame.into(), self.frames.into())
    }

    fn hva_of(&self, vm: &VmConfig, frame: usize) -> HostPage {
        self.hva.add(vm.pages_of(frame - usize::from(self.frame)))
    }
}

/// What the guest is entitled to find at a GPA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entitled {
    /// No memory: no memslot, or an alias of a private one. Accesses go to user space, nothing may be mapped.
    Hole,
    /// Memory whose memslot or page is being taken away: nothing may be mapped, the access is retried.
    InFlux,
    /// Memory whose page nobody can have: nothing may be mapped, the access ends in an error.
    NoPage,
    /// This page, with at most these rights.
    Memory(Pfn, Rights),
}

/// What kind of memslot stands behind a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SlotKind {
    /// None.
    Hole,
    /// A user slot that is writable and not logged.
    User,
    /// A user slot with dirty logging.
    Logged,
    /// A read-only user slot.
    ReadOnly,
    /// A private slot.
    Internal,
    /// A slot that is being deleted or moved.
    Invalid,
}

impl SlotKind {
    /// The name used in signatures.
    pub const fn name(self) -> &'static str {
        match self {
            SlotKind::Hole => "hole",
            SlotKind::User => "user",
            SlotKind::Logged => "logged",
            SlotKind::ReadOnly => "readonly",
            SlotKind::Internal => "private",
            SlotKind::Invalid => "invalid",
        }
    }
}

#[derive(Clone, Copy, Debug, Hash)]
struct PendingChange {
    id: SlotId,
    change: SlotChange,
}

#[derive(Clone, Copy, Debug, Hash)]
struct PendingFault {
    gpa: Gpa,
    access: Access,
    raced: bool,
    hole_at_begin: bool,
}

/// The reference model of one VM.
#[derive(Clone, Debug)]
pub struct Model {
    vm: VmConfig,
    slots: [Option<Slot>; SLOTS],
    slot_of: [u8; FRAMES],
    alias_holes: FrameSet,
    change: Option<PendingChange>,
    faults: [Option<PendingFault>; VCPUS],
    log_must: FrameSet,
    log_may: FrameSet,
    /// Entries in the dirty ring of each vCPU, at most.
    ring_may: [u8; VCPUS],
    pub(crate) tracked: FrameSet,
    /// Frames that were tables on the way of an access: writes to them may be emulated.
    pub(crate) shadowed: FrameSet,
    pub(crate) stale: Vec<StaleGpte>,
    /// The pages that vCPUs wait for.
    pub(crate) async_pf: Vec<AsyncPf>,
    memory_attributes: MemoryAttributes,
    /// The frames of the zap that has begun and not ended.
    zapping: Option<FrameSet>,
}

const NO_SLOT: u8 = u8::MAX;

impl Model {
    /// A VM without memslots.
    pub fn new(vm: &VmConfig) -> Self {
        Self {
            vm: *vm,
            slots: [None; SLOTS],
            slot_of: [NO_SLOT; FRAMES],
            alias_holes: FrameSet::ALL,
            change: None,
            faults: [None; VCPUS],
            log_must: FrameSet::EMPTY,
            log_may: FrameSet::EMPTY,
            ring_may: [0; VCPUS],
            tracked: FrameSet::EMPTY,
            shadowed: FrameSet::EMPTY,
            stale: Vec::new(),
            async_pf: Vec::new(),
            memory_attributes: MemoryAttributes::default(),
            zapping: None,
        }
    }

    /// Take in what tells this state of the VM from others.
    pub(crate) fn hash_state(&self, hasher: &mut impl Hasher) {
        // What follows from the memslots is left out.
        let Self {
            vm: _,
            slots,
            slot_of: _,
            alias_holes: _,
            change,
            faults,
            log_must,
            log_may,
            ring_may,
            tracked,
            memory_attributes,
            zapping,
            shadowed,
            stale,
            async_pf,
        } = self;
        (slots, change, faults, zapping).hash(hasher);
        (log_must, log_may, ring_may, tracked, memory_attributes).hash(hasher);
        (shadowed, stale, async_pf).hash(hasher);
    }

    /// The VM.
    pub fn vm(&self) -> &VmConfig {
        &self.vm
    }

    /// Whether a memslot change has begun and not ended.
    pub fn slot_change_pending(&self) -> bool {
        self.change.is_some()
    }

    /// Whether `vcpu` is inside a fault that has not ended.
    pub fn fault_pending(&self, vcpu: u8) -> bool {
        self.faults[usize::from(vcpu)].is_some()
    }

    /// How many vCPUs are inside a fault that has not ended.
    pub fn faults_pending(&self) -> usize {
        self.faults.iter().flatten().count()
    }

    /// The address of the fault that `vcpu` is inside of.
    pub fn pending_fault(&self, vcpu: u8) -> Option<(Gpa, Access)> {
        self.faults[usize::from(vcpu)].map(|fault| (fault.gpa, fault.access))
    }

    /// The frames of slot `id`, if it exists.
    pub fn slot_frames(&self, id: SlotId) -> FrameSet {
        self.slots[id.index()].map_or(FrameSet::EMPTY, |slot| slot.frames())
    }

    /// The frames of user slots that log dirty pages.
    pub fn logged_frames(&self) -> FrameSet {
        let logged = self.slots.iter().flatten().filter(|slot| slot.flags.log_dirty);
        logged.fold(FrameSet::EMPTY, |set, slot| set.union(slot.frames()))
    }

    /// The frames whose aliases are holes: those without a slot, and those of private slots.
    pub fn alias_holes(&self) -> FrameSet {
        self.alias_holes
    }

    /// What divides the frames, so that no leaf may translate both sides.
    pub fn memory_attributes(&self) -> &MemoryAttributes {
        &self.memory_attributes
    }

    /// Whether a leaf of `level` may translate `frame`, whatever page it leads to.
    pub fn admits_leaf(&self, frame: usize, level: Level) -> bool {
        level == Level::Page4K || {
            let leaf = self.vm.frames_of_leaf(self.vm.gfn(frame), level);
            !divides(self.memory_attributes.uncacheable(), leaf) && !divides(self.memory_attributes.private(), leaf)
        }
    }

    /// What kind of memslot stands behind `frame`.
    pub fn slot_kind(&self, frame: usize) -> SlotKind {
        match self.slot_at(frame) {
            None => SlotKind::Hole,
            Some((_, slot)) if slot.invalid => SlotKind::Invalid,
            Some((id, _)) if id.is_internal() => SlotKind::Internal,
            Some((_, slot)) if slot.flags.readonly => SlotKind::ReadOnly,
            Some((_, slot)) if slot.flags.log_dirty => SlotKind::Logged,
            Some(_) => SlotKind::User,
        }
    }

    /// What the guest is entitled to find at `frame` under `alias`.
    ///
    /// An alias of no slot or of a private slot is a hole (`kvm_faultin_pfn()` in the seed); a slot in its INVALID window
    /// and a page under invalidation may not be mapped by anyone.
    pub fn entitled(&self, host: &Host, frame: usize, alias: Alias) -> Entitled {
        let Some((id, slot)) = self.slot_at(frame) else { return Entitled::Hole };
        if id.is_internal() && !alias.is_none() {
            return Entitled::Hole;
        }
        let hva = slot.hva_of(&self.vm, frame);
        if slot.invalid || host.invalidating(hva) || self.memory_attributes.changing().contains(frame) {
            return Entitled::InFlux;
        }
        if host.is_gone(hva) {
            return Entitled::NoPage;
        }
        let readonly = slot.flags.readonly || self.tracked.contains(frame);
        let rights = if readonly { Rights::RX } else { Rights::RWX };
        Entitled::Memory(host.pfn(hva), rights)
    }

    /// The page behind `frame`, even if its memslot is going; none if there is no memslot, or the host is taking or has taken the
    /// page away.
    pub fn page(&self, host: &Host, frame: usize) -> Option<Pfn> {
        self.hva(frame).filter(|hva| !host.invalidating(*hva) && !host.is_gone(*hva)).map(|hva| host.pfn(hva))
    }

    /// The host page behind `frame`, whatever its memslot is for and whether it is being taken away.
    pub(crate) fn hva(&self, frame: usize) -> Option<HostPage> {
        self.slot_at(frame).map(|(_, slot)| slot.hva_of(&self.vm, frame))
    }

    /// Whether nobody can have the page behind `frame`, if there is a memslot.
    pub(crate) fn is_gone(&self, host: &Host, frame: usize) -> bool {
        self.hva(frame).is_some_and(|hva| host.is_gone(hva))
    }

    fn slot_at(&self, frame: usize) -> Option<(SlotId, &Slot)> {
        let index = self.slot_of[frame];
        let slot = self.slots.get(usize::from(index))?.as_ref()?;
        Some((SlotId::new(index)?, slot))
    }

    /// Whether `op` means anything in this state; otherwise it is skipped. `host` is the host before the op.
    pub fn accepts(&self, host: &Host, op: &Op) -> bool {
        let idle = |vcpu: u8| vcpu < self.vm.vcpus() && self.faults[usize::from(vcpu)].is_none();
        match *op {
            // KVM holds slots_lock for a whole change, and waits for invalidations before it swaps the slots.
            Op::Slot { id, change } | Op::SlotBegin { id, change } => {
                self.slots_lock_is_free() && !host.any_invalidating() && self.change_is_legal(id, change)
            }
            Op::SlotEnd => self.change.is_some() && !host.any_invalidating(),
            Op::Access { vcpu, .. }
            | Op::FaultBegin { vcpu, .. }
            | Op::Prefault { vcpu, .. }
            | Op::Translate { vcpu, .. }
            | Op::WriteGpte { vcpu, .. }
            | Op::GuestWalk { vcpu, .. }
            | Op::GuestFlush { vcpu }
            | Op::PageReady { vcpu }
            | Op::AsyncPfClear { vcpu } => idle(vcpu),
            Op::GuestAccess { vcpu, .. } => idle(vcpu) && self.vm.stride() == 1,
            Op::FaultEnd { vcpu } => self.faults[usize::from(vcpu)].is_some(),
            Op::UnmapBegin { window, .. } => host.window(window).is_none(),
            Op::UnmapEnd { window } => host.window(window).is_some(),
            // The dirty log ioctls take slots_lock too.
            Op::DirtyGet { id } => self.slots_lock_is_free() && self.is_logged(id),
            Op::DirtyClear { id, gfn, pages } => {
                let frames = self.vm.frames(gfn, pages.into());
                self.slots_lock_is_free() && self.is_logged(id) && frames.minus(self.slot_frames(id)).is_empty()
            }
            // Whoever tracks holds the memslots still meanwhile.
            Op::WriteTrack { gfn } => self.change.is_none() && self.is_tracked(gfn) == Some(false),
            Op::WriteUntrack { gfn } => self.change.is_none() && self.is_tracked(gfn) == Some(true),
            Op::SlotAliased { id, .. } => self.slots_lock_is_free() && self.slots[id.index()].is_none(),
            Op::Collapse { range } => range.holds_huge(),
            Op::PageOut { .. } | Op::PageIn { .. } => self.vm.async_pf(),
            Op::Unmap { .. } | Op::ProtNone { .. } | Op::Age { .. } | Op::WriteProtect { .. } => true,
            Op::Attributes { .. } | Op::AttributesBegin { .. } => self.slots_lock_is_free(),
            Op::AttributesEnd => self.memory_attributes.is_changing(),
            Op::ZapBegin { .. } => self.zapping.is_none(),
            Op::ZapEnd => self.zapping.is_some(),
            Op::NxRecover => self.vm.nx_huge_pages(),
            Op::MemoryType { .. } | Op::MmuPages { .. } | Op::Backend(_) => true,
        }
    }

    /// Whether nobody is in the middle of what KVM does under `slots_lock`: changes of memslots and of attributes.
    fn slots_lock_is_free(&self) -> bool {
        self.change.is_none() && !self.memory_attributes.is_changing()
    }

    /// Whether something is going on for which any access may be retried.
    pub(crate) fn in_flux(&self, host: &Host) -> bool {
        !self.slots_lock_is_free() || host.any_invalidating() || self.zapping.is_some()
    }

    fn is_logged(&self, id: SlotId) -> bool {
        self.slots[id.index()].is_some_and(|slot| slot.flags.log_dirty)
    }

    /// Whether writes to `gfn` are tracked, if a memslot is there.
    fn is_tracked(&self, gfn: Gfn) -> Option<bool> {
        let frame = self.vm.frame(gfn)?;
        self.slot_at(frame).map(|_| self.tracked.contains(frame))
    }

    fn change_is_legal(&self, id: SlotId, change: SlotChange) -> bool {
        let slot = self.slots[id.index()];
        match change {
            SlotChange::Create { gfn, pages, flags, .. } => {
                let plain = flags == SlotFlags::default();
                slot.is_none() && (plain || !id.is_internal()) && self.is_free(gfn, self.vm.frames_in(pages.into()), id)
            }
            SlotChange::Delete => slot.is_some(),
            SlotChange::Move { gfn } => slot.is_some_and(|slot| {
                !id.is_internal()
                    && self.vm.frame(gfn) != Some(slot.frame.into())
                    && self.is_free(gfn, slot.frames.into(), id)
            }),
            SlotChange::Flags(flags) => slot.is_some_and(|slot| !id.is_internal() && slot.flags != flags),
        }
    }

    /// Whether a slot of `frames` frames fits at `gfn`, disregarding slot `id` itself.
    fn is_free(&self, gfn: Gfn, frames: usize, id: SlotId) -> bool {
        let fits = self.vm.frame(gfn).is_some_and(|frame| frame + frames <= FRAMES);
        let wanted = self.vm.frame(gfn).map_or(FrameSet::EMPTY, |frame| FrameSet::range(frame, frames));
        let mut others = self.slots.iter().enumerate().filter(|(other, _)| *other != id.index());
        fits && others.all(|(_, slot)| slot.is_none_or(|slot| slot.frames().intersect(wanted).is_empty()))
    }

    /// The frames that any page of `range` backs.
    pub fn frames_of(&self, range: HostPageRange) -> FrameSet {
        let (start, end) = (self.vm.hva_index(range.start), self.vm.hva_index(HostPage::new(range.end())));
        let mut frames = FrameSet::EMPTY;
        for slot in self.slots.iter().flatten() {
            let first = self.vm.hva_index(slot.hva);
            let (low, high) = (start.max(first), end.min(first + usize::from(slot.frames)));
            if low < high {
                frames = frames.union(FrameSet::range(usize::from(slot.frame) + low - first, high - low));
            }
        }
        frames
    }

    /// Carry out an accepted op and say what may come of it. `host` is the host after the op; `exit` is what the target
    /// answered, of which only this counts: whether an access was completed, and whether a fault is pending.
    pub fn step(&mut self, host: &Host, op: &Op, exit: &Exit) -> Allowed {
        let mut allowed = Allowed::default();
        match *op {
            Op::Slot { id, change } => {
                self.slot_begin(id, change, &mut allowed);
                self.slot_end(&mut allowed);
            }
            Op::SlotBegin { id, change } => self.slot_begin(id, change, &mut allowed),
            Op::SlotEnd => self.slot_end(&mut allowed),
            Op::Access { vcpu, gpa, access } => allowed = self.access_of(host, vcpu, (gpa, access), exit),
            Op::FaultBegin { vcpu, gpa, access } => {
                allowed = self.access_of(host, vcpu, (gpa, access), exit);
                allowed.pending = true;
                if *exit == Exit::Pending {
                    let hole_at_begin = allowed.mmio.is_some();
                    self.faults[usize::from(vcpu)] = Some(PendingFault { gpa, access, raced: false, hole_at_begin });
                }
            }
            Op::Prefault { vcpu, gpa } => {
                allowed = self.prefault(host, gpa, exit);
                allowed.ring_full = self.list_dirty(vcpu, self.frames_at(gpa));
            }
            Op::FaultEnd { vcpu } => {
                if let Some(fault) = self.faults[usize::from(vcpu)].take() {
                    allowed = self.access(host, fault.gpa, fault.access, exit);
                    // The vCPU enters the guest again, unless the fault took the last entry (`kvm_dirty_ring_check_request()`).
                    allowed.ring_full = self.list_dirty(vcpu, self.frames_at(fault.gpa));
                    allowed.retry |= fault.raced;
                    if fault.raced && fault.hole_at_begin {
                        allowed.mmio = allowed.mmio.or(Some(self.vm.stolen().split(fault.gpa).0));
                    }
                }
            }
            Op::Unmap { .. }
            | Op::UnmapBegin { .. }
            | Op::UnmapEnd { .. }
            | Op::Collapse { .. }
            | Op::PageOut { .. }
            | Op::ProtNone { .. } => {
                self.race_faults();
                self.note_overwritten(host, None);
                allowed.done = true;
                // Nothing to revoke by name: what maps an old page, or maps in a window, is unsound by its page.
                allowed.changed = host.changed().map_or(FrameSet::EMPTY, |range| self.frames_of(range));
            }
            Op::PageIn { range } => {
                self.read_in(range);
                allowed.done = true;
            }
            Op::Age { .. } => allowed.young = true,
            Op::DirtyGet { id } => {
                let frames = self.slot_frames(id);
                allowed.dirty = Some((self.log_must.intersect(frames), self.log_may.intersect(frames)));
            }
            Op::DirtyClear { gfn, pages, .. } => {
                let frames = self.vm.frames(gfn, pages.into());
                self.forget_log(frames);
                // User space gives back every entry that it took.
                self.ring_may = [0; VCPUS];
                allowed.done = true;
                (allowed.revoked, allowed.revoked_rights) = (frames, Rights::W);
            }
            Op::WriteProtect { gfn } => {
                allowed.done = true;
                (allowed.revoked, allowed.revoked_rights) = (self.vm.frames(gfn, 1), Rights::W);
            }
            Op::WriteTrack { gfn } | Op::WriteUntrack { gfn } => {
                let frames = self.vm.frames(gfn, 1);
                let on = matches!(op, Op::WriteTrack { .. });
                self.tracked = if on { self.tracked.union(frames) } else { self.tracked.minus(frames) };
                allowed.done = true;
                allowed.changed = frames;
            }
            Op::SlotAliased { .. } => allowed.refused = true,
            Op::Attributes { gfn, pages, private } => {
                self.attributes_begin(gfn, pages, private, &mut allowed);
                self.memory_attributes.end_attributes();
            }
            Op::AttributesBegin { gfn, pages, private } => self.attributes_begin(gfn, pages, private, &mut allowed),
            Op::AttributesEnd => {
                self.race_faults();
                allowed.done = true;
                allowed.changed = self.memory_attributes.end_attributes();
            }
            Op::MemoryType { gfn, pages, memory } => {
                self.race_faults();
                let frames = self.vm.frames(gfn, pages.into());
                self.memory_attributes.set_memory_type(frames, memory);
                allowed.done = true;
                allowed.changed = frames;
            }
            Op::ZapBegin { gfn, pages, .. } => {
                self.race_faults();
                self.zapping = Some(self.vm.frames(gfn, pages.into()));
                allowed.done = true;
            }
            Op::ZapEnd => {
                self.race_faults();
                allowed.zapped = self.zapping.take().unwrap_or(FrameSet::EMPTY);
                allowed.done = true;
            }
            Op::NxRecover | Op::MmuPages { .. } | Op::Backend(_) => allowed.done = true,
            Op::Translate { table, leaf, .. } => self.translate(host, table, leaf, &mut allowed),
            Op::WriteGpte { vcpu, gpa, .. } => {
                self.note_overwritten(host, self.vm.locate(gpa).map(|(frame, _)| frame));
                allowed = self.access_of(host, vcpu, (gpa, Access::Write), exit);
            }
            Op::GuestWalk { root, gva, access, .. } => {
                let walk = self.guest_walk(host, root, gva, access);
                (allowed.translated, allowed.guest_fault) = (walk.end.ok(), walk.end.err());
                (allowed.table_in_flux, allowed.retry) = (walk.in_flux, walk.in_flux);
            }
            Op::GuestAccess { vcpu, root, gva, access } => {
                allowed = self.guest_access(host, (vcpu, root), gva, access, exit);
                allowed.ring_full = self.list_dirty(vcpu, FrameSet::ALL);
            }
            Op::GuestFlush { vcpu } => {
                self.flush_guest_tlb(vcpu);
                allowed.done = true;
            }
            Op::PageReady { vcpu } => allowed = self.page_ready(host, vcpu, exit),
            Op::AsyncPfClear { vcpu } => {
                self.clear_async_pf(vcpu);
                allowed.done = true;
            }
        }
        allowed
    }

    /// Nothing may map the frames from here on.
    fn attributes_begin(&mut self, gfn: Gfn, pages: u32, private: bool, allowed: &mut Allowed) {
        self.race_faults();
        allowed.done = true;
        allowed.changed = self.vm.frames(gfn, pages.into());
        self.memory_attributes.begin_attributes(allowed.changed, private);
    }

    /// What an access may come to that `vcpu` enters the guest for.
    fn access_of(&mut self, host: &Host, vcpu: u8, (gpa, access): (Gpa, Access), exit: &Exit) -> Allowed {
        let mut allowed = self.access(host, gpa, access, exit);
        allowed.ring_full = self.list_dirty(vcpu, self.frames_at(gpa));
        self.fault_on_page(host, (vcpu, gpa, access), exit, &mut allowed);
        allowed
    }

    /// What a guest access may come to, and what it leaves in the dirty log.
    pub(crate) fn access(&mut self, host: &Host, gpa: Gpa, access: Access, exit: &Exit) -> Allowed {
        let mut allowed = Allowed { retry: self.in_flux(host), ..Allowed::default() };
        let Some((frame, alias)) = self.vm.locate(gpa) else { return allowed };
        let (gfn, _) = self.vm.stolen().split(gpa);
        match self.entitled(host, frame, alias) {
            Entitled::Hole => {
                allowed.mmio = Some(gfn);
                // Nothing can be fetched from a hole; user space may see that as an error instead of an exit.
                allowed.error = access == Access::Execute;
            }
            Entitled::InFlux => {
                allowed.retry = true;
                // Who looks for the page first finds none.
                allowed.error = self.slot_kind(frame) != SlotKind::Invalid && self.is_gone(host, frame);
                // A write to a read-only slot exits before anybody looks whether its page is being invalidated.
                if access == Access::Write && self.slot_kind(frame) == SlotKind::ReadOnly {
                    allowed.mmio = Some(gfn);
                }
            }
            Entitled::NoPage if access == Access::Write && self.slot_kind(frame) == SlotKind::ReadOnly => {
                allowed.mmio = Some(gfn);
            }
            Entitled::NoPage => allowed.error = true,
            Entitled::Memory(_, rights) if !rights.contains(Rights::needed(access)) => {
                if self.slot_kind(frame) == SlotKind::ReadOnly {
                    allowed.mmio = Some(gfn);
                }
            }
            Entitled::Memory(pfn, _) => {
                allowed.memory = Some(pfn);
                self.log_access(frame, access, exit);
            }
        }
        self.tracked_write(host, frame, access, exit, &mut allowed);
        allowed
    }

    /// What user space may be told that asks for a page to be mapped: done, nothing there, nobody can have it, or try again. A
    /// design may also refuse to be asked by an alias, as Linux does (8046d29dde17).
    fn prefault(&mut self, host: &Host, gpa: Gpa, exit: &Exit) -> Allowed {
        let access = self.access(host, gpa, Access::Read, exit);
        let refused = !self.vm.stolen().split(gpa).1.is_none();
        Allowed {
            retry: access.retry,
            done: access.memory.is_some(),
            not_found: access.mmio.is_some(),
            error: access.error,
            refused,
            ..Allowed::default()
        }
    }

    /// A write to a tracked frame is emulated on the page behind it, whatever the tables are doing meanwhile.
    fn tracked_write(&mut self, host: &Host, frame: usize, access: Access, exit: &Exit, allowed: &mut Allowed) {
        let Some((_, slot)) = self.slot_at(frame) else { return };
        let tracked = self.tracked.union(self.shadowed);
        let emulates = access == Access::Write && tracked.contains(frame);
        let lost = slot.invalid || self.is_gone(host, frame);
        if emulates && allowed.mmio.is_none() && !lost && !slot.flags.readonly {
            allowed.emulated = Some(host.pfn(slot.hva_of(&self.vm, frame)));
            self.log_access(frame, access, exit);
        }
    }

    /// `vcpu` touches one of `frames`, and may list it in its dirty ring; whether there may have been no room for that.
    pub(crate) fn list_dirty(&mut self, vcpu: u8, frames: FrameSet) -> bool {
        let Some(entries) = self.vm.dirty_ring() else { return false };
        let logged = !self.logged_frames().intersect(frames).is_empty();
        let listed = &mut self.ring_may[usize::from(vcpu)];
        let full = *listed + DIRTY_RING_RESERVED > entries;
        if logged {
            *listed = (*listed + DIRTY_RING_RESERVED).min(entries);
        }
        full
    }

    pub(crate) fn frames_at(&self, gpa: Gpa) -> FrameSet {
        self.vm.locate(gpa).map_or(FrameSet::EMPTY, |(frame, _)| FrameSet::one(frame))
    }

    fn log_access(&mut self, frame: usize, access: Access, exit: &Exit) {
        let Some((id, slot)) = self.slot_at(frame) else { return };
        if !slot.flags.log_dirty {
            return;
        }
        let settling = self.settling() == Some(id);
        let one = FrameSet::one(frame);
        // Reads too: a writable slot may be mapped writable on a read fault, and is then dirty from the start.
        self.log_may = self.log_may.union(one);
        if access == Access::Write && matches!(exit, Exit::Memory(_) | Exit::Emulated(_)) && !settling {
            self.log_must = self.log_must.union(one);
        }
    }

    /// The slot between the two halves of a change: while its log is being switched on, SPTEs from before may still be
    /// written through without being logged.
    fn settling(&self) -> Option<SlotId> {
        self.change.map(|change| change.id)
    }

    /// The target was seen to hold writable translations of `frames`. The guest may write through them at any time, so
    /// where writes are logged these frames must be in the log from now on.
    ///
    /// `new` are those of `frames` that the last op made writable. While logging is being switched on only these may be
    /// dirty already: what was writable before has to be taken back when the change ends.
    pub fn writable_seen(&mut self, frames: FrameSet, new: FrameSet) {
        if frames.is_empty() {
            return;
        }
        let settling = self.settling().map_or(FrameSet::EMPTY, |id| self.slot_frames(id));
        let logged = frames.intersect(self.logged_frames()).minus(settling);
        self.log_must = self.log_must.union(logged);
        self.log_may = self.log_may.union(frames.minus(settling)).union(new);
    }

    fn forget_log(&mut self, frames: FrameSet) {
        self.log_must = self.log_must.minus(frames);
        self.log_may = self.log_may.minus(frames);
    }

    fn race_faults(&mut self) {
        for fault in self.faults.iter_mut().flatten() {
            fault.raced = true;
        }
    }

    fn slot_begin(&mut self, id: SlotId, change: SlotChange, allowed: &mut Allowed) {
        self.race_faults();
        allowed.done = true;
        self.change = Some(PendingChange { id, change });
        let Some(slot) = &mut self.slots[id.index()] else { return };
        match change {
            SlotChange::Create { .. } => {}
            SlotChange::Flags(flags) if flags.readonly == slot.flags.readonly => {
                slot.flags = flags;
                let frames = slot.frames();
                self.forget_log(frames);
            }
            SlotChange::Delete | SlotChange::Move { .. } | SlotChange::Flags(_) => {
                slot.invalid = true;
                allowed.changed = slot.frames();
            }
        }
    }

    fn slot_end(&mut self, allowed: &mut Allowed) {
        self.race_faults();
        allowed.done = true;
        let Some(PendingChange { id, change }) = self.change.take() else { return };
        let before = self.slots[id.index()];
        let after = match change {
            SlotChange::Create { gfn, pages, hva, flags } => {
                let frame = self.vm.frame(gfn).unwrap_or(0) as u8;
                Some(Slot { frame, frames: self.vm.frames_in(pages.into()) as u8, hva, flags, invalid: false })
            }
            SlotChange::Delete => None,
            SlotChange::Move { gfn } => {
                let frame = self.vm.frame(gfn).unwrap_or(0) as u8;
                before.map(|slot| Slot { frame, invalid: false, ..slot })
            }
            SlotChange::Flags(flags) => before.map(|slot| Slot { flags, invalid: false, ..slot }),
        };
        let touched = [before, after].into_iter().flatten().fold(FrameSet::EMPTY, |set, slot| set.union(slot.frames()));
        let settled = matches!((change, before), (SlotChange::Flags(_), Some(slot)) if !slot.invalid);
        if settled {
            // Only dirty logging was switched. Pages written since the begin may stay writable, because they are logged.
            if after.is_some_and(|slot| slot.flags.log_dirty) {
                (allowed.revoked, allowed.revoked_rights) = (touched.minus(self.log_may), Rights::W);
            }
        } else {
            self.tracked = self.tracked.minus(touched);
            self.forget_tables(touched);
            let kept = match (change, before, after) {
                // A moved slot keeps its dirty bitmap (KVM_MR_MOVE in kvm_prepare_memory_region()).
                (SlotChange::Move { .. }, Some(old), Some(new)) => [self.log_must, self.log_may]
                    .map(|log| log.intersect(old.frames()).moved(old.frame.into(), new.frame.into())),
                _ => [FrameSet::EMPTY; 2],
            };
            self.forget_log(touched);
            self.log_must = self.log_must.union(kept[0]);
            self.log_may = self.log_may.union(kept[1]);
        }
        allowed.changed = allowed.changed.union(touched);
        self.slots[id.index()] = after;
        self.index_slots();
    }

    fn index_slots(&mut self) {
        self.slot_of = [NO_SLOT; FRAMES];
        self.alias_holes = FrameSet::ALL;
        for (index, slot) in self.slots.iter().enumerate() {
            if let Some(slot) = slot {
                let start = usize::from(slot.frame);
                self.slot_of[start..start + usize::from(slot.frames)].fill(index as u8);
                if index < USER_SLOTS {
                    self.alias_holes = self.alias_holes.minus(slot.frames());
                }
            }
        }
    }

    /// The guest's own tables are read with stolen bits stripped from every pointer (`gpte_to_gfn_lvl()` in the seed).
    fn translate(&self, host: &Host, table: Gpa, leaf: Gpa, allowed: &mut Allowed) {
        let Some((frame, _)) = self.vm.locate(table) else { return };
        let entitled = self.entitled(host, frame, Alias::NONE);
        if entitled == Entitled::Hole {
            allowed.guest_fault = Some(Fault::NotPresent);
        } else {
            allowed.translated = Some(self.vm.stolen().base(leaf));
        }
        let in_flux = entitled == Entitled::InFlux;
        (allowed.table_in_flux, allowed.retry) = (in_flux, in_flux);
    }
}
