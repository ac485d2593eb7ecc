//! Changes that the host and user space make while vCPUs run: host pages, memslots, attributes, memory types.

pub(crate) mod attributes;
pub(crate) mod invalidate;
pub(crate) mod memory_type;
pub(crate) mod memslots;
