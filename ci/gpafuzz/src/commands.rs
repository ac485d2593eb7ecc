//! The commands, one a file.

pub mod bench;
pub mod coverage;
pub mod exhaust;
pub mod fuzz;
pub mod minimize;
pub mod replay;
pub mod targets;
pub mod teeth;
pub mod walk;
