//! ioeventfds: KVM signals an eventfd when a guest writes to an address outside memory, and the vCPU does not exit.
//!
//! KVM compares the full address of the access, alias included (`ioeventfd_in_range()`, and the fast MMIO bus that EPT
//! violations consult first). So each name of a frame has an eventfd of its own: a write signals that one, once, and no other.

use crate::error::{Doing, MachineError};
use gpa_model::Gpa;
use kvm_bindings::{KVM_CAP_IOEVENTFD, KVM_CAP_IOEVENTFD_ANY_LENGTH};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Checks that `fd` offers them for writes of any length.
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

/// How many are kept. KVM's bus has room for `NR_IOBUS_DEVS`, and each change of the bus takes milliseconds.
const KEPT: usize = 512;

/// ioeventfds at addresses that are written, and at addresses that KVM must not confuse with them.
#[derive(Debug, Default)]
pub(crate) struct IoeventfdSet(BTreeMap<u64, EventFd>);

/// What a write signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signalled {
    /// Nothing.
    Nothing,
    /// The eventfd of its address, once.
    Own,
    /// The eventfd of another address, or any eventfd more than once.
    Wrong,
}

impl IoeventfdSet {
    /// Assigns an ioeventfd to each of `gpas`.
    pub(crate) fn assign(&mut self, fd: &VmFd, gpas: [Gpa; 2]) -> Result<(), MachineError> {
        if self.0.len() + gpas.len() > KEPT {
            self.deassign_all(fd)?;
        }
        for gpa in gpas {
            if let Entry::Vacant(free) = self.0.entry(gpa.raw()) {
                let eventfd = EventFd::new(EFD_NONBLOCK).doing("create an eventfd")?;
                // Without a datamatch, writes of any length signal.
                fd.register_ioevent(&eventfd, &IoEventAddress::Mmio(gpa.raw()), NoDatamatch)
                    .doing("assign an ioeventfd")?;
                free.insert(eventfd);
            }
        }
        Ok(())
    }

    /// What a write to `gpa` signalled.
    pub(crate) fn signalled(&self, gpa: Gpa) -> Result<Signalled, MachineError> {
        let mut signalled = Signalled::Nothing;
        for (&at, eventfd) in &self.0 {
            signalled = match (take_count(eventfd).doing("read an eventfd")?, signalled) {
                (0, signalled) => signalled,
                (1, Signalled::Nothing) if at == gpa.raw() => Signalled::Own,
                _ => Signalled::Wrong,
            };
        }
        Ok(signalled)
    }

    /// Removes all of them.
    pub(crate) fn deassign_all(&mut self, fd: &VmFd) -> Result<(), MachineError> {
        for (gpa, eventfd) in std::mem::take(&mut self.0) {
            fd.unregister_ioevent(&eventfd, &IoEventAddress::Mmio(gpa), NoDatamatch).doing("remove an ioeventfd")?;
        }
        Ok(())
    }
}

/// How often `eventfd` was signalled since the last call.
fn take_count(eventfd: &EventFd) -> io::Result<u64> {
    match eventfd.read() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        count => count,
    }
}
