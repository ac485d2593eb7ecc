//! The roots of the TDP MMU: a direct one for addresses with the stolen bit, a mirrored one for those without, and those that no
//! vCPU will load again but whose tables are still there.

use gpa_model::{Alias, Gpa, StolenMask};

/// Which root an address is translated from. Without a stolen bit every address is direct (`kvm_is_addr_direct()`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Root {
    /// Shared memory, in TDX.
    Direct,
    /// Private memory.
    Mirror,
}

impl Root {
    pub(crate) const ALL: [Root; 2] = [Root::Direct, Root::Mirror];

    /// The root for `gpa` (`tdp_mmu_get_root_for_fault()`).
    pub(crate) const fn of(direct: StolenMask, gpa: Gpa) -> Self {
        if direct.gfn_mask() == 0 || direct.taints(gpa.page()) { Root::Direct } else { Root::Mirror }
    }

    /// The alias of the addresses that it translates (`kvm_gfn_root_bits()`).
    pub(crate) fn alias(self, direct: StolenMask) -> Alias {
        match self {
            Root::Direct => direct.alias(direct.alias_count() - 1),
            Root::Mirror => Alias::NONE,
        }
    }
}

/// Which names of a range of gfns are meant (`enum kvm_gfn_range_filter`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GfnFilter {
    /// Those with the stolen bit, or all if no bit is stolen.
    Shared,
    /// Those without.
    Private,
    /// Both.
    All,
}

impl GfnFilter {
    /// Whether it means the names that `root` translates (`kvm_gfn_range_filter_to_root_types()`).
    pub(crate) const fn reaches(self, root: Root) -> bool {
        match self {
            GfnFilter::Shared => matches!(root, Root::Direct),
            GfnFilter::Private => matches!(root, Root::Mirror),
            GfnFilter::All => true,
        }
    }
}
