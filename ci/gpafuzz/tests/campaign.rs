//! Campaigns on an MMU of another crate: what is found, how small it gets, and what is left on disk.

mod toy;

use gpa_model::generate::Profile;
use gpa_model::{Capabilities, Op, Program, text};
use gpa_oracles::{Lockstep, Violation};
use gpafuzz::campaign::Setting;
use gpafuzz::campaign::course;
use gpafuzz::campaign::finding::{Confirmed, FINDING_FILE, MINIMIZED_FILE, Metadata, PROGRAM_FILE, REPORT_FILE};
use gpafuzz::campaign::known::{self, Known};
use gpafuzz::campaign::store::{Store, StoreError};
use gpafuzz::campaign::summary::{self, TargetSummary};
use gpafuzz::engine::{Budget, Engine};
use gpafuzz::target::{InProcess, Opened, Target, TargetError};
use std::path::Path;
use std::sync::atomic::AtomicBool;

fn campaign<T: Target + 'static>(target: T, out: &Path, known: &[Known]) -> TargetSummary {
    let stop = AtomicBool::new(false);
    let store = Store::open(out).expect("a new folder");
    let budget = Budget { runs: Some(3000), deadline: None, stop: &stop };
    let setting = Setting { seed: 7, jobs: 1, resume: false, vcpus: None, store: &store, known };
    let opened = Opened { target: Box::new(target), note: None };
    let again = || unreachable!("there is one job");
    course::run("toy", opened, &again, &Lockstep::default, budget, setting).expect("a campaign").summary
}

#[test]
fn a_forgotten_flush_is_found_minimised_and_written() {
    let out = tempfile::tempdir().expect("a folder");
    let mut target = InProcess::<toy::ForgetsAliases>::default();
    let summary = campaign(InProcess::<toy::ForgetsAliases>::default(), out.path(), &[]);
    assert_eq!(summary.executions, 3000);
    assert!(summary.findings.iter().any(|finding| finding.signature.oracle == "alias_flush"), "{summary:#?}");
    for finding in &summary.findings {
        let folder = out.path().join(&finding.folder);
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect(name);
        let (program, minimized) = (read(PROGRAM_FILE), read(MINIMIZED_FILE));
        assert!(finding.ops_after <= 6, "{minimized}");
        assert!(text::parse(&program).expect(&program).ops.len() >= finding.ops_after);
        let metadata: Metadata = serde_json::from_str(&read(FINDING_FILE)).expect("metadata");
        assert_eq!(metadata.signature, finding.signature);
        assert!(read(REPORT_FILE).contains(&metadata.why));

        // The minimised program breaks the same law in the same way.
        let minimized = text::parse(&minimized).expect(&minimized);
        let again = target.judge(&mut Lockstep::default(), &minimized).expect("a verdict");
        assert_eq!(again.map(|violation| (&violation.signature).into()), Some(metadata.signature));
    }
}

#[test]
fn every_vm_has_as_many_vcpus_as_were_asked_for() {
    let stop = AtomicBool::new(false);
    let budget = Budget { runs: Some(2000), deadline: None, stop: &stop };
    let mut target = InProcess::<toy::ForgetsAliases>::default();
    let engine = Engine::new(&mut target, Lockstep::default(), 7, budget).expect("an engine");
    let mut engine = engine.with_vcpus(Some(2));
    engine.record();
    while !engine.is_done() {
        engine.round().expect("a round");
    }
    let programs = engine.recording();
    assert!(programs.len() >= 2000 && programs.iter().all(|program| program.vm.vcpus() == 2));
    let ops = programs.iter().flat_map(|program| &program.ops);
    let uses = |n| ops.clone().any(|op| matches!(op, Op::Access { vcpu, .. } if *vcpu == n));
    assert!(uses(0) && uses(1) && !uses(2));
}

#[test]
fn a_panic_is_a_finding_like_any_other() {
    let out = tempfile::tempdir().expect("a folder");
    let summary = campaign(InProcess::<toy::PanicsOnAge>::default(), out.path(), &[]);
    let [finding] = &summary.findings[..] else { panic!("{summary:#?}") };
    assert_eq!((finding.signature.oracle.as_str(), finding.ops_after), ("panic", 1));
    let minimized = std::fs::read_to_string(out.path().join(&finding.folder).join(MINIMIZED_FILE)).expect("a program");
    insta::assert_snapshot!(minimized);
}

#[test]
fn what_is_known_is_written_and_says_so() {
    let out = tempfile::tempdir().expect("a folder");
    let known = known::parse("toy panic/panic/age/none/none G0 it feels its age").expect("a list");
    let summary = campaign(InProcess::<toy::PanicsOnAge>::default(), out.path(), &known);
    let [finding] = &summary.findings[..] else { panic!("{summary:#?}") };
    assert_eq!(finding.known.as_ref().map(|known| known.gap.as_str()), Some("G0"));
    assert!(out.path().join(&finding.folder).join(FINDING_FILE).is_file());
}

#[test]
fn a_campaign_that_was_killed_leaves_nothing_half_written() {
    let out = tempfile::tempdir().expect("a folder");
    let findings = out.path().join("findings/toy");
    for folder in [".half.new", ".lost.old", ".kept.old", "kept"] {
        std::fs::create_dir_all(findings.join(folder)).expect(folder);
    }
    drop(Store::open(out.path()).expect("a store"));
    let mut left: Vec<_> =
        std::fs::read_dir(&findings).expect("a folder").map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["kept", "lost"]);
}

#[test]
fn two_campaigns_do_not_write_to_one_folder() {
    let out = tempfile::tempdir().expect("a folder");
    let _first = Store::open(out.path()).expect("a store");
    assert!(matches!(Store::open(out.path()), Err(StoreError::Busy(_))));
}

#[test]
fn a_lock_that_is_a_link_or_a_pipe_is_refused_and_what_it_leads_to_is_untouched() {
    let (out, elsewhere) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let (lock, victim) = (out.path().join(".lock"), elsewhere.path().join("victim"));
    std::fs::write(&victim, "kept").expect("a file");
    std::os::unix::fs::symlink(&victim, &lock).expect("a link");
    assert!(matches!(Store::open(out.path()), Err(StoreError::Unwritable(..))));
    assert_eq!(std::fs::read_to_string(&victim).expect("the file"), "kept");
    std::fs::remove_file(&lock).expect("the link");
    assert!(std::process::Command::new("mkfifo").arg(&lock).status().expect("mkfifo").success());
    assert!(matches!(Store::open(out.path()), Err(StoreError::Unwritable(..))));
    std::fs::remove_file(&lock).expect("the pipe");
    std::fs::write(&lock, "somebody's").expect("a file");
    drop(Store::open(out.path()).expect("a store"));
    assert_eq!(std::fs::read_to_string(&lock).expect("the lock"), "somebody's");
}

#[test]
fn what_cannot_be_written_is_kept_and_returned() {
    let out = tempfile::tempdir().expect("a folder");
    let store = Store::open(out.path()).expect("a store");
    std::fs::remove_dir_all(out.path().join("findings")).expect("the folder");
    std::fs::write(out.path().join("findings"), "in the way").expect("a file");
    let stop = AtomicBool::new(false);
    let budget = Budget { runs: Some(300), deadline: None, stop: &stop };
    let setting = Setting { seed: 7, jobs: 1, resume: true, vcpus: None, store: &store, known: &[] };
    let open = || Ok(Opened { target: Box::new(InProcess::<toy::PanicsOnAge>::default()), note: None });
    let run =
        || course::run("toy", open().expect("a target"), &open, &Lockstep::default, budget, setting).expect("a run");
    let outcome = run();
    assert_eq!((outcome.summary.findings.len(), outcome.unsaved.len()), (1, 1));
    assert!(outcome.unsaved[0].report.contains("panic"), "{}", outcome.unsaved[0].report);
    // The folder is back: a campaign that goes on says nothing was done, because nothing was written down, and finds it again.
    std::fs::remove_file(out.path().join("findings")).expect("the file");
    let outcome = run();
    assert_eq!((outcome.summary.findings.len(), outcome.unsaved.len()), (1, 0));
    assert!(out.path().join(&outcome.summary.findings[0].folder).join(FINDING_FILE).is_file());
}

#[test]
fn finding_it_again_replaces_it() {
    let out = tempfile::tempdir().expect("a folder");
    let target = InProcess::<toy::PanicsOnAge>::default;
    let first = campaign(target(), out.path(), &[]);
    std::fs::write(out.path().join(&first.findings[0].folder).join("stale"), "").expect("a file");
    assert_eq!(campaign(target(), out.path(), &[]).findings, first.findings);
    assert_eq!(std::fs::read_dir(out.path().join("findings/toy")).expect("a folder").count(), 1);
    assert!(!out.path().join(&first.findings[0].folder).join("stale").exists());
}

/// Answers only for the programs it has on record.
struct FromRecord(InProcess<toy::PanicsOnAge>, Vec<Program>);

impl Target for FromRecord {
    fn judge(&mut self, run: &mut Lockstep, program: &Program) -> Result<Option<Violation>, TargetError> {
        if self.1.iter().any(|recorded| recorded.ops == program.ops) {
            return self.0.judge(run, program);
        }
        Err(TargetError::Failed("not on record".into()))
    }

    fn report(
        &mut self,
        run: &mut Lockstep,
        program: &Program,
        name: &str,
    ) -> Result<(String, Option<Violation>), TargetError> {
        self.0.report(run, program, name)
    }

    fn profile(&self) -> Profile {
        self.0.profile()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn recorded(&self) -> Option<Vec<Program>> {
        Some(self.1.clone())
    }
}

#[test]
fn a_record_is_judged_once_and_as_it_is() {
    let out = tempfile::tempdir().expect("a folder");
    let head =
        "gpafuzz-program 1\nvm stolen=40 vcpus=1 base=0x1e0 flush=works\nslot 0 create gfn=0x1e0 pages=1 hva=0\n";
    let programs = ["slot 0 delete", "unmap hva=0 pages=1\nage hva=0 pages=1"];
    let programs = programs.map(|rest| text::parse(&format!("{head}{rest}\n")).expect(rest)).to_vec();
    let summary = campaign(FromRecord(InProcess::default(), programs), out.path(), &[]);
    assert_eq!(summary.executions, 2);
    let [finding] = &summary.findings[..] else { panic!("{summary:#?}") };
    assert_eq!((finding.ops_before, finding.ops_after), (3, 3), "a record cannot be minimised");
}

/// Shows what it does wrong only every third time, as hardware may.
#[derive(Default)]
struct NowAndThen(InProcess<toy::PanicsOnAge>, u32);

impl Target for NowAndThen {
    fn judge(&mut self, run: &mut Lockstep, program: &Program) -> Result<Option<Violation>, TargetError> {
        let verdict = self.0.judge(run, program)?;
        self.1 += u32::from(verdict.is_some());
        Ok(verdict.filter(|_| self.1.is_multiple_of(3)))
    }

    fn report(
        &mut self,
        run: &mut Lockstep,
        program: &Program,
        name: &str,
    ) -> Result<(String, Option<Violation>), TargetError> {
        self.0.report(run, program, name)
    }

    fn profile(&self) -> Profile {
        self.0.profile()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn confirmations(&self) -> u32 {
        12
    }
}

#[test]
fn how_reliably_a_finding_shows_is_measured() {
    let out = tempfile::tempdir().expect("a folder");
    let summary = campaign(NowAndThen::default(), out.path(), &[]);
    let [finding] = &summary.findings[..] else { panic!("{summary:#?}") };
    assert_eq!((finding.reproduces, finding.confirmed), (false, Some(Confirmed { shown: 4, runs: 12 })));
    let lines = summary::finding_lines("toy", out.path(), finding);
    assert!(lines.contains("; not stable: it showed in 4 of 12 runs"), "{lines}");
}
