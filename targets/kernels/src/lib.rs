//! Linux kernels to test: Debian's, fetched and verified, or a developer's own, with KVM as it is or rebuilt with changes.
//!
//! A kernel is [found](Kernel::find) by its version or in a folder. It gives an image that can be booted, [modules](Kernel::modules),
//! and KVM's own [unpacked](Kernel::kvm_modules). Against its [headers](headers()) and KVM's [source](source()) code can be compiled, and [`build`] makes
//! KVM's modules with a script of [`edits`] carried out, such as [`stolen`] GPA bits.
//!
//! Everything is kept in a [`Cache`] of this user, checked each time it is used; nothing is written elsewhere, and nothing is
//! installed. What runs a kernel is no part of this crate.

pub mod build;
pub mod cache;
pub mod command;
mod debian;
pub mod edits;
pub mod error;
mod headers;
pub mod kernel;
pub mod protected;
mod source;
pub mod stolen;

pub use cache::Cache;
pub use error::Error;
pub use headers::{Headers, headers};
pub use kernel::{Choice, Kernel, KvmModules};
pub use source::{functions, source};

/// Where a preparation reports how far it is, a line at a time.
pub type Progress<'a> = &'a mut dyn FnMut(&str);
