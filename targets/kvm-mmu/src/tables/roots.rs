//! The two roots of the TDP MMU: the direct root for addresses with the stolen bit, the mirror root for those without.

use gpa_model::{Alias, Gpa, StolenMask};

/// The root that translates an address. In a VM without a stolen bit every address is direct (`kvm_is_addr_direct()`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Root {
    /// Shared memory in TDX.
    Direct,
    /// Private memory in TDX.
    Mirror,
}

impl Root {
    pub(crate) const ALL: [Root; 2] = [Root::Direct, Root::Mirror];

    /// The root for `gpa` (`tdp_mmu_get_root_for_fault()`).
    pub(crate) const fn of(direct: StolenMask, gpa: Gpa) -> Self {
        if direct.gfn_mask() == 0 || direct.taints(gpa.page()) { Root::Direct } else { Root::Mirror }
    }

    /// The alias of the addresses that the root translates (`kvm_gfn_root_bits()`).
    pub(crate) fn alias(self, direct: StolenMask) -> Alias {
        match self {
            Root::Direct => direct.alias(direct.alias_count() - 1),
            Root::Mirror => Alias::NONE,
        }
    }
}

/// Selects the addresses of a range of gfns that an operation is for (`enum kvm_gfn_range_filter`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GfnFilter {
    /// The addresses with the stolen bit, or all addresses in a VM without one.
    Shared,
    /// The addresses without the stolen bit.
    Private,
    /// Both.
    All,
}

impl GfnFilter {
    /// Whether the filter selects addresses that `root` translates (`kvm_gfn_range_filter_to_root_types()`).
    pub(crate) const fn reaches(self, root: Root) -> bool {
        match self {
            GfnFilter::Shared => matches!(root, Root::Direct),
            GfnFilter::Private => matches!(root, Root::Mirror),
            GfnFilter::All => true,
        }
    }
}
