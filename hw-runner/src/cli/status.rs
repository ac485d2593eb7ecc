//! Exit statuses of the commands.

use crate::MachineError;

/// How the command ends. The discriminant is the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Status {
    /// Everything was done, and no oracle objects.
    Clean = 0,
    /// An oracle objects.
    Findings = 1,
    /// A file or an argument cannot be used, or standard output takes no more.
    BadInput = 2,
    /// The environment lacks what was asked for: no `/dev/kvm`, or no permission to use it.
    Absent = 3,
}

impl Status {
    /// A guest that hangs or dies is a finding about this KVM. Every other error is about the environment.
    pub(super) const fn of(error: &MachineError) -> Self {
        if error.is_finding() { Self::Findings } else { Self::Absent }
    }
}
