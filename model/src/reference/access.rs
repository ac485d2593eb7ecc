//! What a guest access may come to, and what is known once it has.

use super::{Allowed, Entitled, Model, SlotKind};
use crate::addr::{Alias, Gpa, Pfn};
use crate::host::Host;
use crate::mmu::Exit;
use crate::program::{Access, Rights};

impl Model {
    /// What an access may come to that `vcpu` enters the guest for.
    pub(super) fn expect_entry(&self, host: &Host, vcpu: u8, gpa: Gpa, access: Access) -> Allowed {
        let mut allowed = self.expect_access(host, gpa, access);
        allowed.ring_full = self.may_be_full(vcpu);
        self.expect_wait(host, (vcpu, gpa, access), &mut allowed);
        allowed
    }

    /// What a guest access may come to.
    pub(super) fn expect_access(&self, host: &Host, gpa: Gpa, access: Access) -> Allowed {
        let mut allowed = Allowed::default();
        let Some((frame, alias)) = self.vm.locate(gpa) else { return allowed };
        allowed.retry = self.is_in_flux(host, frame);
        let readonly = self.slot_kind(frame) == SlotKind::ReadOnly;
        let mut shared_hole = false;
        match self.entitled(host, frame, alias) {
            Entitled::Hole => {
                allowed.mmio = Some(gpa);
                // No instruction can be fetched from a hole; user space may see an error instead of an exit.
                allowed.error = access == Access::Execute;
            }
            Entitled::InFlux => {
                allowed.retry = true;
                if self.vm.shared_private() && self.memory_attributes.converting().contains(frame) {
                    // The old attribute or the new one may be seen, and is compared before anything else is.
                    allowed.memory_fault = true;
                    shared_hole = self.is_shared_hole(frame, alias);
                }
                // A look-up of the page before the check for invalidations finds none.
                allowed.error = self.slot_kind(frame) != SlotKind::Invalid && self.is_gone(host, frame);
                // A write to a read-only slot exits before its page is looked up.
                allowed.mmio = Some(gpa).filter(|_| access == Access::Write && readonly || shared_hole);
            }
            Entitled::NoPage if access == Access::Write && readonly => allowed.mmio = Some(gpa),
            Entitled::NoPage => allowed.error = true,
            Entitled::OtherKind => {
                allowed.memory_fault = true;
                // An MMIO entry outlives a change of the attribute: `tdp_mmu_zap_leafs()` removes present entries only.
                allowed.mmio = Some(gpa).filter(|_| self.is_shared_hole(frame, alias));
            }
            Entitled::Memory(_, rights) if !rights.contains(Rights::needed(access)) => {
                allowed.mmio = Some(gpa).filter(|_| readonly);
            }
            Entitled::Memory(pfn, _) => allowed.memory = Some(pfn),
        }
        allowed.emulated = self.tracked_page(host, frame, access).filter(|_| allowed.mmio.is_none());
        allowed
    }

    /// Whether `frame` has no memslot and `alias` names shared memory.
    fn is_shared_hole(&self, frame: usize, alias: Alias) -> bool {
        !alias.is_none() && self.slot_kind(frame) == SlotKind::Hole
    }

    /// What a request of user space to map a page may come to: done, no memory there, no page to be had, or try again. A design may
    /// also refuse a request by an alias ([`Capabilities::refuses_aliased_prefault`](crate::Capabilities)).
    pub(super) fn expect_prefault(&self, host: &Host, gpa: Gpa) -> Allowed {
        let access = self.expect_access(host, self.prefaulted(gpa), Access::Read);
        Allowed {
            retry: access.retry,
            interruptible: true,
            done: access.memory.is_some(),
            not_found: access.mmio.is_some(),
            error: access.error || access.memory_fault,
            refused: !self.vm.stolen().split(gpa).1.is_none(),
            ..Allowed::default()
        }
    }

    /// The address that is mapped when user space asks for `gpa` to be: that of the kind of memory which is there, in a VM with a
    /// shared bit (`kvm_arch_vcpu_pre_fault_memory()`, aa2024c01a9a).
    pub fn prefaulted(&self, gpa: Gpa) -> Gpa {
        let stolen = self.vm.stolen();
        let Some((frame, alias)) = self.vm.locate(gpa).filter(|_| self.vm.shared_private()) else { return gpa };
        let private = self.memory_attributes.private().contains(frame);
        if private || !alias.is_none() { gpa } else { stolen.join(stolen.split(gpa).0, stolen.alias(1)) }
    }

    /// The page on which a write to a tracked frame is emulated, whatever the tables are doing meanwhile.
    fn tracked_page(&self, host: &Host, frame: usize, access: Access) -> Option<Pfn> {
        let (_, slot) = self.slot_at(frame)?;
        let emulates = access == Access::Write && self.tracked.union(self.shadowed).contains(frame);
        let lost = slot.invalid || self.is_gone(host, frame);
        (emulates && !lost && !slot.flags.readonly).then(|| host.pfn(slot.hva_of(&self.vm, frame)))
    }

    /// An access to `gpa` by `vcpu` ended in `exit`.
    pub(super) fn observe_access(&mut self, host: &Host, vcpu: u8, (gpa, access): (Gpa, Access), exit: &Exit) {
        let frames = self.frames_at(gpa);
        self.list_dirty(vcpu, frames);
        let allowed = self.expect_access(host, gpa, access);
        let reached = allowed.memory.is_some() || allowed.emulated.is_some();
        if let Some(frame) = frames.first().filter(|_| reached) {
            self.log_access(frame, access, exit);
        }
    }
}
