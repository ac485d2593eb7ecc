//! The processor: it makes one access of the guest at a time, by walks of page tables and a TLB, and leaves the guest when it cannot.
//!
//! It follows the APM, volume 2, 5.3 to 5.5 (page translation), 15.16 (ASIDs and TLB control) and 15.25 (nested
//! paging), and the SDM, volume 3C, 29.3 (EPT) and 29.4 (caching).

mod access;
mod enter;
pub(crate) mod format;
mod guest_walk;
mod instruction;
pub(crate) mod settings;
mod tlb;
mod vmx;
pub(crate) mod walk;

pub(crate) use access::{Progress, abandon, forget, prepare, progress};
pub(crate) use enter::{answers, instruction_of, invalidate_page};
pub(crate) use tlb::{cached, drop_all, drop_range};
pub(crate) use vmx::invalidate as invalidate_context;
pub(crate) use walk::{Leaf, Tables, leaf_of};

pub use access::{Access, Kind};
