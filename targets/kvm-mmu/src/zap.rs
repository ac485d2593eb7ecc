//! Zaps: removing the leaves of a range of gfns, single tables, or everything at once.

use smallvec::SmallVec;

pub(crate) mod collapse;
pub(crate) mod gfn_range;
pub(crate) mod gfns;
pub(crate) mod nx_recovery;
pub(crate) mod recycle;
pub(crate) mod tdp;
pub(crate) mod zap_all;

/// Tables that no entry links any more. They are freed after a flush.
pub(crate) type Retired = SmallVec<[u32; 8]>;
