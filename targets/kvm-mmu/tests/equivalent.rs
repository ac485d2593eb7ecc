//! The equivalent mutants: each as a policy, to show that the argument why it breaks no law holds.

use gpa_model::choices::FromRng;
use gpa_model::generate::{Generator, Profile};
use gpa_model::{Alias, Gfn, Gpa, GuestPaging, Program, SlotId, StolenMask, VmConfig, text};
use gpa_oracles::Lockstep;
use kvm_mmu::mutants::EQUIVALENT;

use kvm_mmu::{AliasFault, Corrected, KvmMmu, Policy, SlotSeen, SpKey, TlbFlush};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

const PROGRAMS: usize = 20_000;

macro_rules! equivalent {
    ($($policy:ident = $name:literal { $($body:tt)* })*) => {
        $(
            #[derive(Debug)]
            struct $policy;

            impl Policy for $policy { $($body)* }
        )*

        const POLICIES: &[(&str, &dyn Policy)] = &[$(($name, &$policy)),*];
    };
}

equivalent! {
    HweightGe1 = "M12-hweight-ge1" {
        fn flush_range(&self, stolen: StolenMask, gfn: Gfn, pages: u64, tlb: &mut dyn TlbFlush) {
            if stolen.alias_count() > 1 { tlb.all() } else { Corrected.flush_range(stolen, gfn, pages, tlb) }
        }
    }
    EndAsCount = "M17-end-as-count" {
        fn flush_range(&self, stolen: StolenMask, gfn: Gfn, pages: u64, tlb: &mut dyn TlbFlush) {
            Corrected.flush_range(stolen, gfn, gfn.raw() + pages, tlb);
        }
    }
    Xor = "M18-xor-instead-of-or" {
        fn flush_range(&self, stolen: StolenMask, gfn: Gfn, pages: u64, tlb: &mut dyn TlbFlush) {
            if !tlb.has_range() || stolen.alias_count() > 2 {
                return tlb.all();
            }
            for alias in stolen.aliases() {
                let flipped = Gfn::new(gfn.raw() ^ alias.raw());
                if tlb.range(stolen.join(flipped, Alias::NONE), pages).is_err() {
                    return tlb.all();
                }
            }
        }
    }
    ReuseWithoutTagCheck = "M25-reuse-without-tag-check" {
        fn reuses_child(&self, existing: &SpKey, wanted: &SpKey) -> bool {
            SpKey { alias: wanted.alias, ..*existing } == *wanted
        }
    }
    PrefetchBlocksBase = "M32-prefetch-blocks-base" {
        fn may_prefetch(&self, _: Alias, id: SlotId) -> bool {
            !id.is_internal()
        }
    }
    PrefetchBlocksUser = "M33-prefetch-blocks-user" {
        fn may_prefetch(&self, alias: Alias, _: SlotId) -> bool {
            alias.is_none()
        }
    }
    PrefetchGfnAliased = "M34-prefetch-gfn-aliased" {
        /// What the lookup comes to: no slot has a gfn with stolen bits.
        fn may_prefetch(&self, alias: Alias, id: SlotId) -> bool {
            alias.is_none() && Corrected.may_prefetch(alias, id)
        }
    }
    NoslotFallthrough = "M51-noslot-fallthrough" {
        fn fault_in(&self, alias: Alias, slot: Option<SlotSeen>) -> AliasFault {
            match slot {
                None => AliasFault::Proceed,
                slot => Corrected.fault_in(alias, slot),
            }
        }
    }
    ReturnHandled = "M53-return-handled" {
        fn caches_mmio(&self, _: bool) -> bool {
            false
        }
    }
    SyncNostrip = "M75-sync-nostrip" {
        fn sync_gfn(&self, _: StolenMask, _: GuestPaging, leaf: Gpa) -> Gfn {
            Gfn::new(leaf.page())
        }
    }
    WarnRemoved = "M77-warn-removed" {
        fn warns_of_gpte(&self, _: StolenMask, _: Gpa, _: Gfn, _: bool) -> bool {
            false
        }

        fn warns_of_fault(&self, _: StolenMask, _: Gpa, _: Gfn) -> bool {
            false
        }
    }
    ZapAnyGfn = "B14-zap-any-gfn" {
        fn goes_with_slot(&self, _: &SpKey) -> bool {
            true
        }
    }
}

#[test]
fn what_is_called_equivalent_breaks_no_law() {
    let listed = EQUIVALENT.iter().map(|equivalent| equivalent.name);
    assert!(listed.eq(POLICIES.iter().map(|(name, _)| *name)), "expected a policy for each of the list, in its order");
    for (name, policy) in POLICIES {
        breaks_no_law(name, *policy);
    }
}

fn breaks_no_law(name: &str, policy: &'static dyn Policy) {
    let mut choices = FromRng(Xoshiro256PlusPlus::seed_from_u64(1));
    let generator = Generator::new(Profile::default());
    let (mut run, mut mmu) = (Lockstep::default(), KvmMmu::<&dyn Policy>::with_policy(policy, &VmConfig::default()));
    let mut program = Program::default();
    for n in 0..PROGRAMS {
        generator.program(&mut choices, &mut program);
        if let Some(violation) = run.run(&mut mmu, &program) {
            panic!("{name}, program {n}: {violation}\n{}", text::print(&program));
        }
    }
}
