//! What one op may come to, and what becomes of the model.

use super::model::PendingFault;
use super::{Allowed, Entitled, Model};
use crate::addr::{Alias, Gfn, Gpa};
use crate::frame_set::FrameSet;
use crate::host::Host;
use crate::limits::VCPUS;
use crate::mmu::{Exit, Fault};
use crate::program::{Access, Op, Rights};

impl Model {
    /// Carry out an accepted op whose answer is known, and say what it may come to.
    pub fn step(&mut self, host: &Host, op: &Op, exit: &Exit) -> Allowed {
        let allowed = self.expect(host, op);
        self.observe(host, op, exit);
        allowed
    }

    /// Carry out an accepted op and say what it may come to. `host` is the host after the op, before the target answers: no answer
    /// can choose by what it is judged.
    pub fn expect(&mut self, host: &Host, op: &Op) -> Allowed {
        let mut allowed = Allowed::default();
        match *op {
            Op::Slot { id, change } => {
                self.slot_begin(id, change, &mut allowed);
                self.slot_end(&mut allowed);
            }
            Op::SlotBegin { id, change } => self.slot_begin(id, change, &mut allowed),
            Op::SlotEnd => self.slot_end(&mut allowed),
            Op::Access { vcpu, gpa, access } => allowed = self.expect_entry(host, vcpu, gpa, access),
            Op::FaultBegin { vcpu, gpa, access } => {
                allowed = self.expect_entry(host, vcpu, gpa, access);
                allowed.pending = true;
            }
            Op::Prefault { vcpu, gpa } => {
                allowed = self.expect_prefault(host, gpa);
                allowed.ring_full = self.may_be_full(vcpu);
            }
            Op::FaultEnd { vcpu } => {
                if let Some(fault) = self.faults[usize::from(vcpu)] {
                    allowed = self.expect_access(host, fault.gpa, fault.access);
                    // The vCPU enters the guest again, unless the fault took the last entry (`kvm_dirty_ring_check_request()`).
                    allowed.ring_full = self.may_be_full(vcpu);
                    // `mmu_invalidate_seq` is one number for the VM (`is_page_fault_stale()`).
                    allowed.retry |= fault.raced;
                    if fault.raced && fault.hole_at_begin {
                        allowed.mmio = Some(fault.gpa);
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
                allowed = self.expect_entry(host, vcpu, gpa, Access::Write);
            }
            Op::GuestWalk { root, gva, access, .. } => {
                let walk = self.guest_walk(host, root, gva, access);
                (allowed.translated, allowed.guest_fault) = (walk.end.ok(), walk.end.err());
                (allowed.table_in_flux, allowed.retry) = (walk.in_flux, walk.in_flux);
            }
            Op::GuestAccess { vcpu, root, gva, access } => {
                allowed = self.expect_guest_access(host, (vcpu, root), gva, access);
                allowed.ring_full = self.may_be_full(vcpu);
            }
            Op::GuestFlush { vcpu } => {
                self.flush_guest_tlb(vcpu);
                allowed.done = true;
            }
            Op::PageReady { vcpu } => allowed = self.expect_page_ready(host, vcpu),
            Op::AsyncPfClear { vcpu } => {
                self.clear_async_pf(vcpu);
                allowed.done = true;
            }
        }
        self.note_invalidations(host, allowed.changed);
        allowed
    }

    /// Take in how `op` ended: which access was completed, which fault is pending, what was written. `host` is the host after the
    /// answer was [settled](Host::settle).
    pub fn observe(&mut self, host: &Host, op: &Op, exit: &Exit) {
        match *op {
            Op::Access { vcpu, gpa, access } => self.observe_entry(host, vcpu, (gpa, access), exit),
            Op::FaultBegin { vcpu, gpa, access } => {
                self.observe_entry(host, vcpu, (gpa, access), exit);
                if *exit == Exit::Pending {
                    let hole_at_begin = self.expect_access(host, gpa, access).mmio.is_some();
                    self.faults[usize::from(vcpu)] = Some(PendingFault { gpa, access, raced: false, hole_at_begin });
                }
            }
            Op::FaultEnd { vcpu } => {
                if let Some(PendingFault { gpa, access, .. }) = self.faults[usize::from(vcpu)].take() {
                    self.observe_access(host, vcpu, (gpa, access), exit);
                }
            }
            Op::Prefault { vcpu, gpa } => {
                let gpa = self.prefaulted(gpa);
                self.observe_access(host, vcpu, (gpa, Access::Read), exit);
            }
            Op::WriteGpte { vcpu, gpa, .. } => {
                self.note_overwritten(host, self.vm.locate(gpa).map(|(frame, _)| frame));
                self.observe_entry(host, vcpu, (gpa, Access::Write), exit);
            }
            Op::GuestAccess { vcpu, root, gva, access } => {
                self.observe_guest_access(host, (vcpu, root), gva, access, exit);
                self.list_dirty(vcpu, FrameSet::ALL);
            }
            Op::PageReady { vcpu } => {
                if let Exit::PageReady(gpa) = *exit {
                    self.observe_page_ready(host, vcpu, gpa, exit);
                }
            }
            _ => {}
        }
    }

    fn observe_entry(&mut self, host: &Host, vcpu: u8, (gpa, access): (Gpa, Access), exit: &Exit) {
        self.observe_access(host, vcpu, (gpa, access), exit);
        if *exit == Exit::PageNotPresent {
            self.observe_wait(host, (vcpu, gpa, access));
        }
    }

    /// Nothing may map the frames from here on.
    pub(super) fn attributes_begin(&mut self, gfn: Gfn, pages: u32, private: bool, allowed: &mut Allowed) {
        self.race_faults();
        allowed.done = true;
        allowed.changed = self.vm.frames(gfn, pages.into());
        self.memory_attributes.begin_attributes(allowed.changed, private);
    }

    /// The guest's own tables are read with stolen bits stripped from every pointer (`gpte_to_gfn_lvl()` in the seed).
    pub(super) fn translate(&self, host: &Host, table: Gpa, leaf: Gpa, allowed: &mut Allowed) {
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
