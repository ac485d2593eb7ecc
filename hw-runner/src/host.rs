//! The host's side: memory that guests use, the ways to take its pages away, and a timer for guests that hang.

pub(crate) mod memory;
pub mod reclaim;
pub(crate) mod userfault;
pub(crate) mod watchdog;
