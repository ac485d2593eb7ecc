//! Linux kernels to test: Debian's, fetched and unpacked in a cache of this user, or a developer's own, with KVM as it is or rebuilt
//! with changes.
//!
//! [`Kernel::find`] gives a kernel that can be booted, [`kbuild::modules`] KVM's modules with a script of [`edits`] carried out, such
//! as [`stolen`] GPA bits. What runs a kernel is no part of this crate.
//!
//! Nothing is installed into the system.

pub mod cache;
pub mod command;
pub mod edits;
pub mod error;
pub mod kbuild;
pub mod kernel;
mod packages;
pub mod protected;
pub mod stolen;

pub use cache::Cache;
pub use error::Error;
pub use kernel::{Choice, Kernel};

/// Where a preparation reports how far it is, a line at a time.
pub type Progress<'a> = &'a mut dyn FnMut(&str);
