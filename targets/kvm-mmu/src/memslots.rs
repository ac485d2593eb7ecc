//! Guest memory as user space describes it, by gfn: memslots, attributes, memory types, dirty rings. Nothing here knows of tables.

pub(crate) mod attributes;
pub(crate) mod dirty_ring;
pub(crate) mod gfn_ranges;
pub(crate) mod page_set;
pub(crate) mod slots;
