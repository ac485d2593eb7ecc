//! The commands, one a file, each with its arguments.

pub mod bench;
pub mod coverage;
mod error;
pub mod exhaust;
mod exit;
pub mod fuzz;
mod kernel;
pub mod minimize;
mod open;
pub mod replay;
pub mod targets;
pub mod teeth;
pub mod walk;

pub use error::CliError;
pub use exit::{EXIT_CODES, Exit};
pub use kernel::KernelArgs;
