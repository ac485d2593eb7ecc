//! The tables of `kvm-mmu` are right by the word of a real page walker, and flushes leave nothing in a real TLB. Where there is no
//! `/dev/kvm` each test says SKIPPED and why.

use gpa_model::choices::FromRng;
use gpa_model::generate::Generator;
use gpa_model::{Program, text};
use gpafuzz::walk::{Counts, MMIO_BIT, Walk, profile};
use hw_runner::Walker;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

const PROGRAMS: u64 = 150;

/// A campaign under a guest that invalidates everything, or forgets one name of each op; and whether tables are shadowed here.
fn campaign(forgetful: bool) -> Option<(Counts, bool)> {
    let walker = match Walker::open() {
        Ok(walker) if walker.fingerprint().maxphyaddr <= MMIO_BIT => walker,
        Ok(_) => {
            println!("SKIPPED: this processor has every address bit, so entries for MMIO do not fault");
            return None;
        }
        Err(error) if error.is_absence() => {
            println!("SKIPPED: {error}");
            return None;
        }
        Err(error) => panic!("/dev/kvm is there, but: {error}"),
    };
    let before = walker.witness();
    let (mut walk, mut program) = (Walk::new(walker, forgetful), Program::default());
    let (generator, mut choices) = (Generator::new(profile()), FromRng(Xoshiro256PlusPlus::seed_from_u64(1)));
    for _ in 0..PROGRAMS {
        generator.program(&mut choices, &mut program);
        let wrong = walk.run(&program).expect("a guest that works");
        assert!(wrong.is_none(), "{}\n{}", wrong.expect("something"), text::print(&program));
    }
    let (after, counts) = (walk.walker().witness(), *walk.counts());
    println!("{counts:?}; {}", after.show_since(&before));
    // Where the guest is emulated as a whole, no page is mapped for it and none of this went through an MMU.
    assert!(after.get("pf_fixed").is_none_or(|fixed| Some(fixed) > before.get("pf_fixed")), "no page was ever mapped");
    Some((counts, walk.walker().fingerprint().paging == "shadow"))
}

#[test]
fn every_name_leads_where_the_model_says_and_flushes_leave_nothing() {
    let Some((counts, _)) = campaign(false) else { return };
    assert!(counts.entitled > 100 && counts.foreign > 1_000 && counts.flushed > 100, "too few to tell: {counts:?}");
    assert!(counts.forgotten == 0 && counts.stale == 0 && counts.cut_short < PROGRAMS / 2, "{counts:?}");
}

/// The control. A TLB may forget whatever it likes, a shadow of the tables does not.
#[test]
fn a_name_that_is_not_invalidated_may_lead_to_the_old_page() {
    let Some((counts, shadowed)) = campaign(true) else { return };
    assert!(counts.forgotten > 20, "{counts:?}");
    assert!(counts.stale > 0 || !shadowed, "{counts:?}");
}
