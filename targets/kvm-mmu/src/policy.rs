//! The decisions that aliasing adds to an MMU: the corrected ones, those of upstream, and those of the RFC as posted.

mod corrected;
mod decisions;
mod direct_mirror;
mod mistake;
mod rfc_v3;

pub use corrected::Corrected;
pub use decisions::{AliasFault, Family, LargeSeen, Policy, SlotSeen};
pub use direct_mirror::DirectMirror;
pub use mistake::Mistake;
pub use rfc_v3::RfcV3;

use std::fmt::Debug;

/// The source of an MMU's policy. A policy that is named by its type is compiled in: calls are direct and cost nothing at run
/// time, but the MMU is compiled for it alone. A `&'static dyn Policy` is called through a pointer, and one MMU serves for all.
///
/// ```
/// use gpa_model::VmConfig;
/// use kvm_mmu::{Policy, SecondStage};
///
/// #[derive(Debug, Default)]
/// struct AllSmall;
///
/// impl Policy for AllSmall {
///     fn may_map_large(&self, _: kvm_mmu::LargeSeen) -> bool {
///         false
///     }
/// }
///
/// let compiled_in = SecondStage::<AllSmall>::new(&VmConfig::default());
/// let behind_a_pointer = SecondStage::<&dyn Policy>::with_policy(&AllSmall, &VmConfig::default());
/// assert!(size_of_val(&compiled_in) < size_of_val(&behind_a_pointer));
/// ```
pub trait HasPolicy: Debug + Send + Sync + 'static {
    /// The type of the policy.
    type Policy: Policy + ?Sized;

    /// The policy.
    fn policy(&self) -> &Self::Policy;
}

impl<P: Policy> HasPolicy for P {
    type Policy = P;

    fn policy(&self) -> &P {
        self
    }
}

impl HasPolicy for &'static dyn Policy {
    type Policy = dyn Policy;

    fn policy(&self) -> &dyn Policy {
        *self
    }
}
