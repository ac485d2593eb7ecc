//! What the names of a gfn mean to the guest.

use crate::variants::all;
use strum::{EnumCount, IntoStaticStr, VariantArray};

/// What a stolen bit says about the memory behind a gfn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash, EnumCount, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Aliasing {
    /// Nothing: every alias of a gfn is the same page, and differs in caller-defined properties only (the seed RFC).
    #[default]
    SamePage,
    /// The one stolen bit is the shared bit. Addresses with it name shared memory, which lies behind an hva; addresses without
    /// it name private memory, which a guest_memfd holds. The attribute of a gfn says which of the two exists right now. TDX is
    /// built so, and Arm CCA and SEV-SNP have the same shape.
    ///
    /// An access to the other one ends in [`Exit::MemoryFault`](crate::Exit::MemoryFault) (`kvm_mmu_faultin_pfn()`). Memslots
    /// cannot be moved, logged or read-only (`check_memory_region_flags()`, `kvm_set_memory_region()`), there are none of KVM's
    /// own, and KVM does not read the guest's tables, which are private.
    SharedPrivate,
}

impl Aliasing {
    /// All of them.
    pub const ALL: [Aliasing; Aliasing::COUNT] = all(Aliasing::VARIANTS);

    /// The word for it in the text format.
    pub fn name(self) -> &'static str {
        self.into()
    }
}
