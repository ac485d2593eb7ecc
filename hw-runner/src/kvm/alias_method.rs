//! Realisations: the ways in which a frame of a guest is given several names on real KVM.
//!
//! To the guest each makes the same promise, that every name of a frame is that frame; the model cannot tell them apart. To
//! KVM each is something else, and leads through other parts of it.

use crate::kvm::address_space::AddressSpace;
use gpa_model::VmConfig;
use std::fmt;

/// How the aliases of a program come about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AliasMethod {
    /// A memslot for each name, all over the same hvas: notifiers and the dirty log meet the page once for each slot.
    #[default]
    Slots,
    /// As slots, but dirty pages are listed in a ring for each vCPU instead of a bitmap for each slot.
    Rings,
    /// As slots, but a write to what is no memory rings an eventfd, of which each name has its own, and the vCPU goes on.
    Ioeventfds,
    /// A memslot for each name, each over its own mapping of one memfd: one page, several hvas.
    Memfd,
    /// One memslot, and guest page tables in which every name leads to its gpa, by entries of 4 KiB and of 2 MiB, writable and not:
    /// several SPTEs in one rmap on shadow paging, of shadow pages of several roles.
    GuestPtes,
    /// The alias that the lowest stolen bit makes is the same gpa in system management mode, whose memslots are others; other bits
    /// are played as by slots.
    Smm,
    /// As guest-ptes, in a VM of type `KVM_X86_SW_PROTECTED_VM`: memslots that are neither logged nor read-only are private, and their
    /// pages a guest_memfd's, which no host address leads to.
    SwProtected,
    /// As slots, and the memory of KVM's own memslots is mapped under each alias, too: the mistake that they must be safe from, made
    /// from outside. It is the positive control of private memslots, and no campaign is on it.
    Exposed,
    /// One memslot, and a kernel that strips stolen bits from the GPA itself.
    Native,
}

impl AliasMethod {
    /// All of them but the one that is a mistake.
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

    /// The word for it in traces and in the names of targets.
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

    /// The one that is called `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().chain([Self::Exposed]).find(|alias_method| alias_method.name() == name)
    }

    /// How many memslots of KVM's make one memslot of `vm`.
    pub(crate) fn slots(self, vm: &VmConfig) -> usize {
        match self {
            Self::Slots | Self::Rings | Self::Ioeventfds | Self::Memfd | Self::Smm | Self::Exposed => {
                vm.stolen().alias_count()
            }
            Self::GuestPtes | Self::SwProtected | Self::Native => 1,
        }
    }

    /// The alias number in the GPA that the guest's page tables hold for alias number `alias`.
    pub(crate) fn alias_in_tables(self, alias: usize) -> usize {
        match self {
            Self::GuestPtes | Self::SwProtected => 0,
            Self::Smm => alias & !1,
            Self::Slots | Self::Rings | Self::Ioeventfds | Self::Memfd | Self::Exposed | Self::Native => alias,
        }
    }

    /// Whether names of a frame are gpas, and not several ways to one: only then can one be a hole and another memory.
    pub(crate) fn names_are_gpas(self) -> bool {
        !matches!(self, Self::GuestPtes | Self::SwProtected | Self::Smm)
    }

    /// Whether the guest's entries for one gpa are of several kinds: of 4 KiB and of 2 MiB, writable and not.
    pub(crate) fn mixes_entries(self) -> bool {
        matches!(self, Self::GuestPtes | Self::SwProtected)
    }

    /// The address space in which that GPA is what alias number `alias` names.
    pub(crate) fn address_space(self, alias: usize) -> AddressSpace {
        if self == Self::Smm && alias & 1 == 1 { AddressSpace::Smm } else { AddressSpace::Normal }
    }

    /// The address spaces that have memslots.
    pub(crate) fn address_spaces(self) -> &'static [AddressSpace] {
        if self == Self::Smm { &AddressSpace::ALL } else { &AddressSpace::ALL[..1] }
    }

    /// Whether KVM is asked to map pages ahead. Not by the programs of that alias method some of which have everything zapped when a
    /// slot goes: the vCPU's root is obsolete from then on, and Linux 6.12 goes round in `KVM_PRE_FAULT_MEMORY` until a signal comes.
    pub fn can_prefault(self) -> bool {
        self != Self::Slots
    }

    /// Whether frames have attributes that a program can change (`KVM_SET_MEMORY_ATTRIBUTES`).
    pub fn has_attributes(self) -> bool {
        self == Self::SwProtected
    }

    /// Whether each vCPU lists what it makes dirty in a ring.
    pub fn has_rings(self) -> bool {
        self == Self::Rings
    }

    /// How many mappings of the host pages there are.
    pub(crate) fn mappings(self) -> usize {
        if self == Self::Memfd { gpa_model::limits::ALIASES } else { 1 }
    }
}

impl fmt::Display for AliasMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
