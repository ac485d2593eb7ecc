//! Campaigns against MMUs that alias guest physical addresses, and the command line that starts them.
//!
//! A campaign runs programs on a [`target`](target::Target) until its budget is spent. Each violation is
//! minimised, told apart by its signature, and written as a folder that replays in one line. This is the only crate that
//! knows the fuzzing library, and [`engine`] the only file of it.

pub mod campaign;
pub mod cli;
pub mod commands;
pub mod docs;
pub mod engine;
pub mod files;
pub mod target;
pub mod teeth;
pub mod terminal;
pub mod walk;
