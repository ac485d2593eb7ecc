//! Why a VM configuration is refused.

use crate::addr::StolenBitError;
use crate::limits::{DIRTY_RING, DIRTY_RING_MIN, FRAMES, MAXPHYADDR_MAX, MAXPHYADDR_MIN, STRIDE, TOP_GFN, VCPUS};
use std::fmt;

/// Why a VM configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmError {
    /// A stolen bit is in an illegal place.
    Stolen(StolenBitError),
    /// Not 1 to [`VCPUS`] vCPUs.
    Vcpus(u64),
    /// The window of frames, which are so far apart, would end above [`TOP_GFN`].
    Base(u64, u64),
    /// Not [`MAXPHYADDR_MIN`] to [`MAXPHYADDR_MAX`] bits of
    /// physical address.
    Maxphyaddr(u64),
    /// A shared bit is one stolen bit, not so many.
    Aliasing(usize),
    /// No power of two from [`DIRTY_RING_MIN`] to [`DIRTY_RING`] entries of a dirty ring.
    DirtyRing(u64),
    /// The stride is no power of two up to [`STRIDE`].
    Stride(u64),
    /// The window does not begin at a multiple of the stride.
    BaseOffStride(u64, u64),
}

impl fmt::Display for VmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stolen(error) => error.fmt(f),
            Self::Vcpus(n) => write!(f, "{n} vCPUs, but a VM has 1 to {VCPUS}"),
            Self::Base(base, stride) => {
                let apart = if *stride == 1 { String::new() } else { format!(", {stride} pages apart,") };
                let highest = TOP_GFN - FRAMES as u64 * stride;
                write!(
                    f,
                    "base {base:#x} puts the guest's {FRAMES} frames{apart} above gfn {TOP_GFN:#x}; use {highest:#x} or below"
                )
            }
            Self::Maxphyaddr(n) => {
                write!(
                    f,
                    "maxphyaddr {n}, but a guest has {MAXPHYADDR_MIN} to {MAXPHYADDR_MAX} bits of physical address"
                )
            }
            Self::Aliasing(n) => {
                write!(f, "aliasing=shared-private with {n} stolen bits, but the shared bit is the only one")
            }
            Self::DirtyRing(n) => write!(
                f,
                "a dirty ring of {n} entries, but it has a power of two from {DIRTY_RING_MIN} to {DIRTY_RING}"
            ),
            Self::Stride(stride) => write!(f, "stride {stride}, but it is a power of two from 1 to {STRIDE}"),
            Self::BaseOffStride(base, stride) => {
                write!(f, "base {base:#x} with stride {stride}, but the base is a multiple of the stride")
            }
        }
    }
}

impl std::error::Error for VmError {}

impl From<StolenBitError> for VmError {
    fn from(error: StolenBitError) -> Self {
        Self::Stolen(error)
    }
}
