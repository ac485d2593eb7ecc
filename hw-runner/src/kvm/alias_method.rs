//! Alias methods: the ways to give a guest frame several GPAs on real KVM.
//!
//! The guest gets the same promise from each: every name of a frame leads to that frame. KVM sees something different in
//! each, so each exercises other code of KVM.

use crate::kvm::address_space::AddressSpace;
use gpa_model::VmConfig;
use std::fmt;

/// How the aliases of a program are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AliasMethod {
    /// One memslot per name, all over the same hvas. mmu_notifiers and dirty logs see the page once per
    /// memslot.
    #[default]
    Slots,
    /// Like slots, but each vCPU lists dirty pages in a ring, instead of a bitmap per memslot.
    Rings,
    /// Like slots, but a write to a hole signals an ioeventfd of its name, and the vCPU does not exit.
    Ioeventfds,
    /// One memslot per name, each over a mapping of its own of one memfd: one page, several hvas.
    Memfd,
    /// One memslot. The guest's page tables map every name to the same gpa, by entries of 4 KiB and 2 MiB,
    /// writable and read-only. On shadow paging that makes several SPTEs in one rmap, from shadow pages of
    /// several roles.
    GuestPtes,
    /// The lowest stolen bit selects the memslots of system management mode at the same gpa. Other bits work
    /// like slots.
    Smm,
    /// Like guest-ptes, in a VM of type `KVM_X86_SW_PROTECTED_VM`. Memslots that are neither logged nor
    /// read-only are private: a guest_memfd backs them, and no hva leads to their pages.
    SwProtected,
    /// Like slots, but KVM's internal memslots are also mapped under each alias, which must never happen. This
    /// is the positive control for internal memslots; campaigns do not use it.
    Exposed,
    /// One memslot, on a kernel that strips stolen bits from the GPA itself.
    Native,
}

impl AliasMethod {
    /// All of them but [`AliasMethod::Exposed`], which is wrong on purpose.
    pub const ALL: [AliasMethod; 8] = [
        Self::Slots,
        Self::Rings,
        Self::Ioeventfds,
        Self::Memfd,
        Self::GuestPtes,
        Self::SwProtected,
        Self::Smm,
        Self::Native,
    ];

    /// The name in traces and in the names of targets.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Slots => "slots",
            Self::Rings => "rings",
            Self::Ioeventfds => "ioeventfds",
            Self::Memfd => "memfd",
            Self::GuestPtes => "guest-ptes",
            Self::Smm => "smm",
            Self::SwProtected => "sw-protected",
            Self::Exposed => "exposed",
            Self::Native => "native",
        }
    }

    /// The alias method called `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().chain([Self::Exposed]).find(|alias_method| alias_method.name() == name)
    }

    /// How many KVM memslots one memslot of `vm` takes.
    pub(crate) fn slots(self, vm: &VmConfig) -> usize {
        match self {
            Self::Slots | Self::Rings | Self::Ioeventfds | Self::Memfd | Self::Smm | Self::Exposed => {
                vm.stolen().alias_count()
            }
            Self::GuestPtes | Self::SwProtected | Self::Native => 1,
        }
    }

    /// The alias number of the GPA that the guest's page tables hold for alias number `alias`.
    pub(crate) fn alias_in_tables(self, alias: usize) -> usize {
        match self {
            Self::GuestPtes | Self::SwProtected => 0,
            Self::Smm => alias & !1,
            Self::Slots | Self::Rings | Self::Ioeventfds | Self::Memfd | Self::Exposed | Self::Native => alias,
        }
    }

    /// Whether names differ in their gpa. Only then can one name be a hole while another is memory.
    pub(crate) fn names_are_gpas(self) -> bool {
        !matches!(self, Self::GuestPtes | Self::SwProtected | Self::Smm)
    }

    /// Whether the guest's page tables use entries of several kinds: 4 KiB and 2 MiB, writable and read-only.
    pub(crate) fn mixes_entries(self) -> bool {
        matches!(self, Self::GuestPtes | Self::SwProtected)
    }

    /// The address space of alias number `alias`.
    pub(crate) fn address_space(self, alias: usize) -> AddressSpace {
        if self == Self::Smm && alias & 1 == 1 { AddressSpace::Smm } else { AddressSpace::Normal }
    }

    /// The address spaces that have memslots.
    pub(crate) fn address_spaces(self) -> &'static [AddressSpace] {
        if self == Self::Smm { &AddressSpace::ALL } else { &AddressSpace::ALL[..1] }
    }

    /// Whether programs prefault. Those of `slots` do not: some of them zap everything when a memslot goes,
    /// which makes the vCPU's root obsolete, and `KVM_PRE_FAULT_MEMORY` of Linux 6.12 then loops until a signal
    /// comes.
    pub fn can_prefault(self) -> bool {
        self != Self::Slots
    }

    /// Whether frames have attributes that a program can change (`KVM_SET_MEMORY_ATTRIBUTES`).
    pub fn has_attributes(self) -> bool {
        self == Self::SwProtected
    }

    /// Whether each vCPU lists dirty pages in a ring.
    pub fn has_rings(self) -> bool {
        self == Self::Rings
    }

    /// How often the host pages are mapped.
    pub(crate) fn mappings(self) -> usize {
        if self == Self::Memfd { gpa_model::limits::ALIASES } else { 1 }
    }
}

impl fmt::Display for AliasMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
