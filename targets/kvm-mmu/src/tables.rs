//! The mappings: entries and their formats, table pages, shadow pages, the rmap, and the iterator. This room asks no
//! policy.

pub(crate) mod rmap;
pub(crate) mod roots;
pub(crate) mod shadow_pages;
pub(crate) mod spte;
pub(crate) mod table_pages;
pub(crate) mod tdp_iter;
