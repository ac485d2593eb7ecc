//! What is mapped: entries and their formats, table pages, what each of them is for, and the ways to find a leaf. Nothing here decides.

pub(crate) mod rmap;
pub(crate) mod roots;
pub(crate) mod shadow_pages;
pub(crate) mod spte;
pub(crate) mod table_pages;
pub(crate) mod tdp_iter;
