//! Drivers: the ways in which a host takes a page away from under a guest.
//!
//! The model and an MMU in this process do not tell them apart: whatever was done, what the guest finds afterwards bears a new
//! identity. On real KVM each is another path through the kernel, of which some move the page and some only unmap it.

use crate::variants::all;
use strum::{EnumCount, IntoStaticStr, VariantArray};

/// What the host does to a range of its own addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, EnumCount, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
#[repr(u8)]
pub enum Reclaim {
    /// `MADV_DONTNEED`.
    Dontneed,
    /// `mremap` of other pages over the old ones.
    Mremap,
    /// `munmap`, by a new mapping over the old one.
    Munmap,
    /// `mprotect` to nothing and back.
    Mprotect,
    /// `mprotect` to read-only and back.
    MprotectRead,
    /// A hole punched into the file that is mapped.
    PunchHole,
    /// `fork`, and a write to each page while the child still shares it: copy on write.
    Fork,
    /// `MADV_COLLAPSE`: the pages become part of a huge page.
    Collapse,
    /// `MADV_PAGEOUT`.
    Pageout,
    /// `MADV_COLD`.
    Cold,
    /// Guard entries in the page tables, put in and taken out (`MADV_GUARD_INSTALL`).
    Guard,
    /// Write-protected and released by a userfaultfd.
    UffdWriteProtect,
    /// Discarded under a userfaultfd, which then copies a page in.
    UffdCopy,
}

impl Reclaim {
    /// Every driver, in declaration order.
    pub const ALL: [Reclaim; Reclaim::COUNT] = all(Reclaim::VARIANTS);

    /// The word for it in the text format.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The one that is called `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reclaim| reclaim.name() == name)
    }
}

/// A set of drivers, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReclaimSet(u16);

impl ReclaimSet {
    /// None.
    pub const NONE: ReclaimSet = ReclaimSet(0);

    /// The set with `driver` in it.
    #[must_use]
    pub const fn with(self, reclaim: Reclaim) -> Self {
        Self(self.0 | 1 << reclaim as u16)
    }

    /// Whether `driver` is in the set.
    pub const fn contains(self, reclaim: Reclaim) -> bool {
        self.0 >> reclaim as u16 & 1 != 0
    }

    /// How many there are.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those in the set, in declaration order.
    pub fn iter(self) -> impl Iterator<Item = Reclaim> {
        Reclaim::ALL.into_iter().filter(move |reclaim| self.contains(*reclaim))
    }
}

impl FromIterator<Reclaim> for ReclaimSet {
    fn from_iter<T: IntoIterator<Item = Reclaim>>(reclaims: T) -> Self {
        reclaims.into_iter().fold(Self::NONE, Self::with)
    }
}
