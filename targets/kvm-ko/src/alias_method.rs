//! Alias methods: the ways in which a frame of a guest is given several names.

use gpa_model::VmConfig;
use std::fmt;

/// How the aliases of a program come about. The guest cannot tell; KVM takes another way for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AliasMethod {
    /// A memslot for each name, all over the same hvas: a stock kernel strips nothing from a GPA, so that a stolen bit is an address
    /// bit like any other.
    #[default]
    Slots,
    /// One memslot, and a kernel that strips stolen bits from the GPA itself.
    Native,
}

impl AliasMethod {
    /// All of them.
    pub const ALL: [AliasMethod; 2] = [Self::Slots, Self::Native];

    /// The word for it in the names of targets.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Slots => "slots",
            Self::Native => "native",
        }
    }

    /// The one that is called `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|alias_method| alias_method.name() == name)
    }

    /// How many memslots of KVM make one memslot of `vm`.
    pub fn slots(self, vm: &VmConfig) -> usize {
        match self {
            Self::Slots => vm.stolen().alias_count(),
            Self::Native => 1,
        }
    }
}

impl fmt::Display for AliasMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
