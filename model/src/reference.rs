//! The reference model: what the guest is entitled to find, and what each op may come to.

mod accepts;
mod access;
mod allowed;
mod async_pf;
mod dirty;
mod entitled;
mod flux;
mod guest_access;
mod guest_walk;
mod memory_attributes;
mod model;
mod slot;
mod slot_change;
mod stale_gpte;
mod step;

pub use allowed::Allowed;
pub use entitled::{Entitled, SlotKind};
pub use guest_walk::GuestWalk;
pub use memory_attributes::MemoryAttributes;
pub use model::Model;
