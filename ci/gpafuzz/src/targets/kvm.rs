//! The target `kvm`: the host's `/dev/kvm`, live if it opens, otherwise traces recorded from one.

use super::Opened;
use crate::target::TargetError;

/// Live, or else recorded.
pub(super) fn open() -> Result<Opened, TargetError> {
    Err(TargetError::Absent { name: "kvm", why: "this build drives no hardware yet".into() })
}
