//! Ops of the host: memslots, invalidations, prefaults, the dirty log.

use super::Machine;
use crate::error::{Doing, MachineError};
use crate::host::reclaim::{Reclaimed, prot_none};
use crate::kvm::memslots::Backing;
use gpa_model::{Exit, Gpa, Host, HostPageRange, Op, Reclaim, VmConfig};

impl Machine {
    pub(super) fn carry_out_op(&mut self, vm: &VmConfig, host: &Host, op: &Op) -> Result<Exit, MachineError> {
        let kvm = Backing { fd: &self.fd, memory: &self.memory, vm };
        Ok(match *op {
            // KVM made it with the VM.
            Op::Slot { id, .. } if id.is_internal() => Exit::Done,
            Op::Slot { id, change } => {
                self.memslots.change(kvm, id, change)?;
                self.make_slot_private(vm, id)?;
                Exit::Done
            }
            Op::SlotBegin { id, change } => self.begin_change(vm, id, change)?,
            Op::SlotEnd => self.end_change()?,
            Op::SlotAliased { id, gpa, pages, hva } => match self.memslots.try_at(kvm, id, gpa, pages, hva)? {
                true => Exit::Done,
                false => Exit::Refused,
            },
            Op::Prefault { vcpu, gpa } => self.prefault(vm, vcpu, gpa)?,
            Op::DirtyGet { id } => Exit::Dirty(self.memslots.dirty(kvm, id)?),
            Op::DirtyClear { id, gfn, pages } => {
                self.memslots.clear_dirty(kvm, id, gfn, pages)?;
                self.use_up_rings(vm)?;
                Exit::Done
            }
            Op::Attributes { gfn, pages, private } => self.set_attributes(vm, vm.frames(gfn, pages.into()), private)?,
            Op::ProtNone { range } => {
                let (start, pages) = (range.start.page() as usize, range.pages as usize);
                prot_none(&self.memory, start, pages).doing("make host pages inaccessible")?;
                for hva in range.iter() {
                    self.stamps[hva.page() as usize] = host.pfn(hva);
                }
                Exit::Done
            }
            Op::Unmap { range, .. } => {
                self.restamp(host, range);
                self.memslots.discard_private(range)?;
                let private = self.memslots.private_frames(vm, None, Some(range));
                self.stamp_private(private)?;
                Exit::Done
            }
            _ => Exit::Unsupported,
        })
    }

    /// Prefaults a page.
    fn prefault(&mut self, vm: &VmConfig, vcpu: u8, gpa: Gpa) -> Result<Exit, MachineError> {
        let alias_method = self.fingerprint.alias_method;
        // A program that zaps everything when a memslot goes may prefault all the same.
        let can = alias_method.can_prefault() || vm.slot_zap_all();
        let Some((frame, alias)) = vm.locate(gpa).filter(|_| can) else {
            return Ok(Exit::Unsupported);
        };
        let alias = vm.stolen().alias_index(alias);
        let vcpu = &mut self.vcpus[usize::from(vcpu)];
        vcpu.enter_space(alias_method.address_space(alias))?;
        match vcpu.pre_fault(vm.gpa(frame, alias_method.alias_in_tables(alias))) {
            Ok(()) => Ok(Exit::Done),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT) => Ok(Exit::NotFound),
                Some(libc::EINVAL) => Ok(Exit::Refused),
                Some(libc::EAGAIN) => Ok(Exit::Retry),
                Some(libc::EINTR) => Ok(Exit::Interrupted),
                Some(libc::EFAULT) => Ok(Exit::Error),
                // Shadow paging, or an older kernel.
                Some(libc::EOPNOTSUPP | libc::ENOTTY) => Ok(Exit::Unsupported),
                _ => Err(error).doing("prefault a page"),
            },
        }
    }

    /// Whether this KVM offers `KVM_PRE_FAULT_MEMORY`, and programs use it.
    pub fn can_prefault(&self) -> bool {
        self.fingerprint.alias_method.can_prefault()
            && self.fd.check_extension_raw(kvm_bindings::KVM_CAP_PRE_FAULT_MEMORY.into()) > 0
    }

    /// Reclaims host pages, and returns whether this host offers the way.
    pub(super) fn unmap(&mut self, range: HostPageRange, by: Option<Reclaim>) -> Result<bool, MachineError> {
        let (start, pages) = (range.start.page() as usize, range.pages as usize);
        let reclaimed = self.reclaims.unmap(by, &self.memory, start, pages).doing("take host pages away")?;
        Ok(reclaimed != Reclaimed::Unsupported)
    }

    /// Gives the pages of `range` the identities that `host` has for them.
    fn restamp(&mut self, host: &Host, range: HostPageRange) {
        for hva in range.iter() {
            self.stamp(hva.page() as usize, host.pfn(hva));
        }
    }
}
