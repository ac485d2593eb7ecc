//! The guest's own page tables: walking them, shadowing them, and synchronising the shadows.

pub(crate) mod pte;
pub(crate) mod shadow;
pub(crate) mod sync;
pub(crate) mod walk;
