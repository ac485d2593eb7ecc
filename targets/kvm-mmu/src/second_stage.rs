//! [`SecondStage`]: the state that the vCPU threads of a VM and its host share, and the locks that guard it.
//!
//! | state | guarded by | |
//! |---|---|---|
//! | memslots | `slots` | read by a fault from look-up to mapping, written by memslot changes; taken before the `mmu_lock` |
//! | rmap, shadow pages, memory types, attributes | `mmu_lock` | |
//! | entries of table pages | nothing | atomics; page walkers and fast page faults change them at any time |
//! | dirty and tracked pages, dirty rings, async page faults | a lock each | taken last |
//! | `mmu_seq` | `mmu_lock` for writes | faults read it without the lock |

use crate::memslots::attributes::Attributes;
use crate::memslots::dirty_ring::DirtyRing;
use crate::memslots::gfn_ranges::GfnRanges;
use crate::memslots::slots::Memslots;
use crate::policy::{Corrected, Family, HasPolicy, Mistake, Policy};
use crate::second_stage::async_pf::AsyncPf;
use crate::second_stage::notifier::Notifier;
use crate::sync::{Lock, ReadLock};
use crate::tables::rmap::Rmap;
use crate::tables::roots::Root;
use crate::tables::shadow_pages::ShadowPages;
use crate::tables::spte::{Ept, Format};
use crate::tables::table_pages::Tables;
use gpa_model::limits::VCPUS;
use gpa_model::{Alias, Gpa, Spte, StolenMask, VmConfig};
use smallvec::SmallVec;

pub(crate) mod async_pf;
pub(crate) mod flush;
mod get_page;
pub(crate) mod leaves;
pub(crate) mod notifier;

/// The state that the `mmu_lock` guards.
#[derive(Debug)]
pub(crate) struct Locked {
    pub(crate) shadow_pages: ShadowPages,
    pub(crate) rmap: Rmap,
    /// The gfns that are not write-back.
    pub(crate) uncacheable: GfnRanges,
    pub(crate) attributes: Attributes,
    /// Roots that no vCPU will load again, but whose tables still exist.
    pub(crate) retired_roots: SmallVec<[u32; 2]>,
    /// Roots of walks that have dropped the lock, once for each walk. They must not be freed.
    pub(crate) held_roots: SmallVec<[u32; 2]>,
}

/// A second-stage MMU of one VM, shared by its vCPUs. `P` decides; the tables have the format `F`.
#[derive(Debug)]
pub struct SecondStage<P: HasPolicy = Corrected, F: Format = Ept> {
    pub(crate) vm: VmConfig,
    /// Held for a whole change of memslots or attributes (`kvm->slots_lock`).
    pub(crate) slots_lock: Lock<()>,
    pub(crate) slots: ReadLock<Memslots>,
    pub(crate) tables: Tables<F>,
    pub(crate) mmu_lock: Lock<Locked>,
    pub(crate) notifier: Notifier,
    /// The writes that processors have logged and that are in no dirty log yet, with the vCPU.
    pub(crate) pml: Lock<Vec<(u8, Gpa)>>,
    /// One ring for each vCPU. Empty in a VM with bitmaps.
    pub(crate) rings: [Lock<DirtyRing>; VCPUS],
    /// The pages that each vCPU waits for.
    pub(crate) async_pf: [Lock<AsyncPf>; VCPUS],
    /// A warning that has not been reported yet.
    pub(crate) warning: Lock<Option<&'static str>>,
    policy: P,
}

impl<P: HasPolicy, F: Format> SecondStage<P, F> {
    /// An MMU with no memslot, no mapping and an empty root table.
    pub fn new(vm: &VmConfig) -> Self
    where
        P: Default,
    {
        Self::with_policy(P::default(), vm)
    }

    /// The same, with the decisions of `policy`.
    pub fn with_policy(policy: P, vm: &VmConfig) -> Self {
        let levels = policy.policy().levels(vm.levels());
        let (shadow_pages, rmap) = (ShadowPages::new(levels, &aliases_of_roots(policy.policy(), vm)), Rmap::new());
        let (uncacheable, attributes) = (GfnRanges::default(), Attributes::default());
        let (retired_roots, held_roots) = (SmallVec::new(), SmallVec::new());
        let locked = Locked { shadow_pages, rmap, uncacheable, attributes, retired_roots, held_roots };
        let mut tables = Tables::new(levels);
        tables.split_roots(direct_bits(policy.policy(), vm));
        Self {
            vm: *vm,
            slots_lock: Lock::default(),
            slots: ReadLock::new(Memslots::new()),
            tables,
            mmu_lock: Lock::new(locked),
            notifier: Notifier::new(),
            pml: Lock::default(),
            rings: Default::default(),
            async_pf: Default::default(),
            warning: Lock::default(),
            policy,
        }
    }

    /// The policy that decides.
    pub(crate) fn policy(&self) -> &P::Policy {
        self.policy.policy()
    }

    /// Whether the MMU makes the mistake `of`, which only a mutant does: the one place where mistakes are planted.
    pub(crate) fn plants(&self, of: Mistake) -> bool {
        cfg!(feature = "mutants") && self.policy().plants(of)
    }

    /// Resets to an empty MMU for `vm`. Allocations are kept.
    pub(crate) fn reset(&mut self, vm: &VmConfig) {
        let policy = self.policy.policy();
        self.vm = *vm;
        self.slots.get_mut().clear();
        let Locked { shadow_pages, rmap, uncacheable, attributes, retired_roots, held_roots } = self.mmu_lock.get_mut();
        shadow_pages.clear(&mut self.tables, policy.levels(vm.levels()), &aliases_of_roots(policy, vm));
        self.tables.split_roots(direct_bits(policy, vm));
        rmap.clear();
        retired_roots.clear();
        held_roots.clear();
        uncacheable.clear();
        attributes.clear();
        self.notifier = Notifier::new();
        self.pml.get_mut().clear();
        self.rings.iter_mut().for_each(|ring| ring.get_mut().clear());
        self.async_pf.iter_mut().for_each(|waiting| waiting.get_mut().clear());
    }

    /// The mapping of `gpa` in the tables.
    pub fn walk(&self, gpa: Gpa) -> Option<Spte> {
        self.tables.walk(gpa)
    }
}

/// The bit that selects the root, if the VM has two roots.
pub(crate) fn direct_bits(policy: &(impl Policy + ?Sized), vm: &VmConfig) -> StolenMask {
    match policy.family() {
        Family::Rmap => StolenMask::NONE,
        Family::Tdp => vm.stolen(),
    }
}

fn aliases_of_roots(policy: &(impl Policy + ?Sized), vm: &VmConfig) -> SmallVec<[Alias; 2]> {
    let direct = direct_bits(policy, vm);
    let roots = if direct.gfn_mask() == 0 { &Root::ALL[..1] } else { &Root::ALL };
    roots.iter().map(|root| root.alias(direct)).collect()
}
