//! Taking away what is mapped: leaves of a range of gfns, tables, or everything at once.

use smallvec::SmallVec;

pub(crate) mod collapse;
pub(crate) mod gfn_range;
pub(crate) mod gfns;
pub(crate) mod nx_recovery;
pub(crate) mod recycle;
pub(crate) mod tdp;
pub(crate) mod zap_all;

/// Tables that nothing links any more, to be freed after a flush.
pub(crate) type Retired = SmallVec<[u32; 8]>;
