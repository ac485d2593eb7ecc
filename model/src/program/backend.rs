//! How the TLB flush back-end of a VM behaves.

use crate::variants::all;
use strum::{EnumCount, IntoStaticStr, VariantArray};

/// How the range-flush back-end behaves (`tlb_remote_flush_with_range`). A full flush always works.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, EnumCount, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum BackendMode {
    /// There is none; only full flushes exist, as on bare-metal x86.
    #[default]
    Absent,
    /// Every range flush succeeds.
    Works,
    /// The first range flush of each op fails.
    FailsFirst,
    /// The second range flush of each op fails.
    FailsSecond,
    /// Every range flush fails.
    FailsAll,
}

impl BackendMode {
    /// All of them.
    pub const ALL: [BackendMode; BackendMode::COUNT] = all(BackendMode::VARIANTS);

    /// The word for it in the text format.
    #[inline]
    pub fn name(self) -> &'static str {
        self.into()
    }
}
