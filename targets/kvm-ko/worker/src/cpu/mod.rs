//! The processor: it makes one access of the guest at a time, by walks of page tables and a TLB, and leaves the guest when it cannot.
//!
//! It follows the APM, volume 2, 5.3 to 5.5 (page translation), 15.16 (ASIDs and TLB control) and 15.25 (nested paging).

mod access;
mod guest_walk;
mod instruction;
pub(crate) mod settings;
mod svm;
mod tlb;
pub(crate) mod walk;

pub(crate) use access::{Progress, abandon, forget, prepare, progress};
pub(crate) use svm::{answers, invalidate_page};
pub(crate) use tlb::{cached, drop_all, drop_range};
pub(crate) use walk::{Leaf, Tables, leaf_of};

pub use access::{Access, Kind};
