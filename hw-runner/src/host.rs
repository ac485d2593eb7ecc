//! The host's side: memory that guests use, the ways to reclaim its pages, and a timer for guests that hang.

pub(crate) mod memory;
pub mod reclaim;
pub(crate) mod userfault;
pub(crate) mod watchdog;
