//! Dirty logging: it records which pages were written through any alias, and makes sure that the next write is noticed.

pub(crate) mod log;
pub(crate) mod pml;
pub(crate) mod rings;
pub(crate) mod track;
pub(crate) mod write_protect;
