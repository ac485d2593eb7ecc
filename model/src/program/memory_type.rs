//! The memory type of a page.

use crate::variants::all;
use strum::{EnumCount, IntoStaticStr, VariantArray};

/// How the processor may cache a page: the guest's MTRRs, reduced to what a leaf must not mix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, EnumCount, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum MemoryType {
    /// Ordinary memory, and what every page is at first.
    #[default]
    WriteBack,
    /// Not at all.
    Uncacheable,
}

impl MemoryType {
    /// All of them.
    pub const ALL: [MemoryType; MemoryType::COUNT] = all(MemoryType::VARIANTS);

    /// The word for it in the text format.
    pub fn name(self) -> &'static str {
        self.into()
    }
}
