//! ioeventfds: KVM answers a guest's write to an address that is no memory by ringing an eventfd, and the vCPU does not come out.
//!
//! KVM knows the address as the guest's access has it, alias and all (`ioeventfd_in_range()`, and the fast MMIO bus that EPT
//! violations look at first). So each name of a frame has an eventfd of its own: a write must ring that one, once, and no other.

use crate::error::{Doing, MachineError};
use crate::kvm::ioctl::{self, Ioeventfd};
use gpa_model::Gpa;
use kvm_bindings::{KVM_CAP_IOEVENTFD, KVM_CAP_IOEVENTFD_ANY_LENGTH};
use kvm_ioctls::VmFd;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// That `fd` has them, for writes of any length.
pub(crate) fn require(fd: &VmFd) -> Result<(), MachineError> {
    for (cap, name) in
        [(KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"), (KVM_CAP_IOEVENTFD_ANY_LENGTH, "KVM_CAP_IOEVENTFD_ANY_LENGTH")]
    {
        if fd.check_extension_raw(cap.into()) < 1 {
            return Err(MachineError::Missing(name));
        }
    }
    Ok(())
}

/// More than KVM has room for on one bus (`NR_IOBUS_DEVS`) would fail; so many are kept, because each change of the bus takes
/// milliseconds.
const KEPT: usize = 512;

/// Eventfds at addresses that are written, and at those that must not be taken for them.
#[derive(Debug, Default)]
pub(crate) struct IoeventfdSet(BTreeMap<u64, Ioeventfd>);

/// What rang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signalled {
    /// Nothing.
    Nothing,
    /// The eventfd of the address, once.
    Own,
    /// That of another address, or one more than once.
    Wrong,
}

impl IoeventfdSet {
    /// Have one at each of `gpas`.
    pub(crate) fn assign(&mut self, fd: &VmFd, gpas: [Gpa; 2]) -> Result<(), MachineError> {
        if self.0.len() + gpas.len() > KEPT {
            self.deassign_all(fd)?;
        }
        for gpa in gpas {
            if let Entry::Vacant(free) = self.0.entry(gpa.raw()) {
                free.insert(ioctl::assign_ioeventfd(fd, gpa).doing("assign an ioeventfd")?);
            }
        }
        Ok(())
    }

    /// What a write to `gpa` rang.
    pub(crate) fn signalled(&self, gpa: Gpa) -> Result<Signalled, MachineError> {
        let mut signalled = Signalled::Nothing;
        for (&at, ioeventfd) in &self.0 {
            signalled = match (ioeventfd.take_count().doing("read an eventfd")?, signalled) {
                (0, signalled) => signalled,
                (1, Signalled::Nothing) if at == gpa.raw() => Signalled::Own,
                _ => Signalled::Wrong,
            };
        }
        Ok(signalled)
    }

    /// Take all of them away.
    pub(crate) fn deassign_all(&mut self, fd: &VmFd) -> Result<(), MachineError> {
        let ioeventfds = std::mem::take(&mut self.0);
        ioeventfds
            .values()
            .try_for_each(|ioeventfd| ioctl::deassign_ioeventfd(fd, ioeventfd))
            .doing("take an ioeventfd away")
    }
}
