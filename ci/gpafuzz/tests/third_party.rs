//! Short campaigns on the crates of other projects find what is known, and nothing else.

use gpa_oracles::Lockstep;
use gpafuzz::campaign::known;
use gpafuzz::campaign::store::Store;
use gpafuzz::campaign::{self, Setting};
use gpafuzz::engine::Budget;
use gpafuzz::target::registry;
use std::sync::atomic::AtomicBool;

/// Nothing is known of these.
const CLEAN: [&str; 4] = ["axaddrspace-linear-4k", "aarch64-paging-live", "x86_64", "hyperlight"];

#[test]
fn every_finding_in_a_third_party_crate_is_known() {
    let (stop, known) = (AtomicBool::new(false), known::list().expect("a list"));
    for adapter in third_party::ALL {
        let out = tempfile::tempdir().expect("a folder");
        let store = Store::open(out.path()).expect("a new folder");
        let mut target = registry::open(adapter.name).expect("a target").target;
        let budget = Budget { runs: Some(4000), deadline: None, stop: &stop };
        let setting = Setting { seed: 1, job: 0, vcpus: None, store: &store, known: &known };
        let summary = campaign::run(adapter.name, target.as_mut(), Lockstep::default(), budget, setting);
        let summary = summary.expect("a campaign").0;
        let new: Vec<_> = summary.findings.iter().filter(|finding| finding.known.is_none()).collect();
        assert!(new.is_empty(), "{}: {new:#?}", adapter.name);
        assert_eq!(summary.findings.is_empty(), CLEAN.contains(&adapter.name), "{}: was it mended?", adapter.name);
    }
}
