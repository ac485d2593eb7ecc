//! Guest memory as user space describes it, by gfn: memslots, attributes, memory types, dirty rings. This room knows no
//! tables and asks no policy.

pub(crate) mod attributes;
pub(crate) mod dirty_ring;
pub(crate) mod gfn_ranges;
pub(crate) mod page_set;
pub(crate) mod slots;
