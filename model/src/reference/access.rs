//! What a guest access may come to.

use super::{Allowed, Entitled, Model, SlotKind};
use crate::addr::{Alias, Gfn, Gpa};
use crate::host::Host;
use crate::mmu::Exit;
use crate::program::{Access, Rights};

impl Model {
    /// What an access may come to that `vcpu` enters the guest for.
    pub(super) fn access_of(&mut self, host: &Host, vcpu: u8, (gpa, access): (Gpa, Access), exit: &Exit) -> Allowed {
        let mut allowed = self.access(host, gpa, access, exit);
        allowed.ring_full = self.list_dirty(vcpu, self.frames_at(gpa));
        self.fault_on_page(host, (vcpu, gpa, access), exit, &mut allowed);
        allowed
    }

    /// What a guest access may come to, and what it leaves in the dirty log.
    pub(super) fn access(&mut self, host: &Host, gpa: Gpa, access: Access, exit: &Exit) -> Allowed {
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
                if self.vm.shared_private() && self.memory_attributes.converting().contains(frame) {
                    // The old attribute or the new one may be seen, and is compared before anything else is.
                    allowed.memory_fault = true;
                    allowed.mmio = self.shared_hole(frame, alias);
                }
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
            Entitled::OtherKind => {
                allowed.memory_fault = true;
                // An MMIO entry outlives a change of the attribute: `tdp_mmu_zap_leafs()` removes present entries only.
                allowed.mmio = self.shared_hole(frame, alias);
            }
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

    /// The gfn of `frame` if it has no memslot and `alias` names shared memory.
    fn shared_hole(&self, frame: usize, alias: Alias) -> Option<Gfn> {
        (!alias.is_none() && self.slot_kind(frame) == SlotKind::Hole).then(|| self.vm.gfn(frame))
    }

    /// What user space may be told that asks for a page to be mapped: done, nothing there, nobody can have it, or try again. A
    /// design may also refuse to be asked by an alias, as Linux does (8046d29dde17).
    pub(super) fn prefault(&mut self, host: &Host, gpa: Gpa, exit: &Exit) -> Allowed {
        let access = self.access(host, self.prefaulted(gpa), Access::Read, exit);
        let refused = !self.vm.stolen().split(gpa).1.is_none();
        Allowed {
            retry: access.retry,
            done: access.memory.is_some(),
            not_found: access.mmio.is_some(),
            error: access.error || access.memory_fault,
            refused,
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

    /// A write to a tracked frame is emulated on the page behind it, whatever the tables are doing meanwhile.
    pub(super) fn tracked_write(
        &mut self,
        host: &Host,
        frame: usize,
        access: Access,
        exit: &Exit,
        allowed: &mut Allowed,
    ) {
        let Some((_, slot)) = self.slot_at(frame) else { return };
        let tracked = self.tracked.union(self.shadowed);
        let emulates = access == Access::Write && tracked.contains(frame);
        let lost = slot.invalid || self.is_gone(host, frame);
        if emulates && allowed.mmio.is_none() && !lost && !slot.flags.readonly {
            allowed.emulated = Some(host.pfn(slot.hva_of(&self.vm, frame)));
            self.log_access(frame, access, exit);
        }
    }
}
