//! Dirty logging: which pages were written, through any alias, and how the next write is noticed.

pub(crate) mod log;
pub(crate) mod pml;
pub(crate) mod rings;
pub(crate) mod track;
pub(crate) mod write_protect;
