//! Booting and running: QEMU is absent, old or broken, machines die, and Ctrl-C comes.

use super::place::{Place, interrupt, said};
use super::{HUNG, WARNING};
use gpa_model::{OpKind, text};
use hw_runner::trace;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output};

#[test]
fn without_qemu_it_says_what_to_install() {
    let place = Place::new("");
    fs::remove_file(place.at("bin/qemu-system-x86_64")).expect("it was there");
    let mut command = place.fuzz("", &["--runs", "1"]);
    let output = command.env("PATH", place.at("bin")).output().expect("gpafuzz runs");
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("install the package qemu-system-x86"), "{}", said(&output));
}

#[test]
fn an_old_qemu_without_plugins_runs_unguided_and_says_so() {
    let output = Place::new("-device").run("answers");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("7.2.0 takes no plugins"), "{}", said(&output));
}

#[test]
fn a_qemu_that_does_not_start_is_quoted() {
    let output = Place::new("-plugin file").run("refuses");
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("there is no such CPU"), "{}", said(&output));
}

#[test]
fn a_machine_that_dies_in_the_middle_of_an_answer_is_a_finding_and_the_next_one_goes_on() {
    let output = Place::new("-plugin file").run("dies");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("kernel/died/end/none/none"), "{}", said(&output));
    assert!(boots(&output) > 2, "{}", said(&output));
}

/// How often a machine came up for the campaign that said so.
fn boots(output: &Output) -> u32 {
    let said = said(output);
    let count = said.lines().find_map(|line| line.strip_suffix(" boots")?.rsplit(' ').next()?.parse().ok());
    count.unwrap_or_else(|| panic!("{said}"))
}

/// A campaign that ends with the finding `name`: what it said, and the finding's folder.
fn finds(place: &Place, campaign: &mut Command, name: &str) -> (Output, PathBuf) {
    let output = campaign.output().expect("gpafuzz runs");
    place.is_tidy();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains(&format!("{name}/end/none/none: new")), "{}", said(&output));
    let folder = format!("{}-end-none-none", name.replace('/', "-"));
    let folder =
        said(&output).lines().find_map(|line| Some(PathBuf::from(line.trim())).filter(|path| path.ends_with(&folder)));
    (output, folder.expect("its folder is named"))
}

#[test]
fn what_does_not_show_again_is_kept_as_it_was_seen() {
    let place = Place::new("-plugin file");
    let (output, folder) = finds(&place, &mut place.fuzz("warns once", &["--runs", "6"]), "kernel/warn-kvm_example");
    for part in ["it showed in 0 of 10 runs", "kept there: found.trace and found.log"] {
        assert!(said(&output).contains(part), "{part}: {}", said(&output));
    }
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect(name);
    assert!(read("found.log").contains(WARNING) && read("report.txt").contains(WARNING));
    let (seen, program) = (trace::parse(&read("found.trace")), text::parse(&read("program.prog")));
    let (seen, program) = (seen.expect("a trace"), program.expect("a program"));
    assert_eq!((seen.missing(), &seen.program.ops), (None, &program.ops));
    let beside = fs::read_dir(folder.parent().expect("a folder")).expect("a folder").flatten();
    assert_eq!(beside.count(), 1, "something half written was left");
}

#[test]
fn a_guest_that_hangs_is_a_finding_and_the_same_kernel_goes_on() {
    let place = Place::new("-plugin file");
    let (output, folder) = finds(&place, &mut place.fuzz("has a guest that hangs", &["--runs", "8"]), "guest/hung");
    assert_eq!(boots(&output), 1, "{}", said(&output));
    let report = fs::read_to_string(folder.join("report.txt")).expect("a report");
    assert!(report.contains(HUNG.split_once(' ').expect("two words").1), "{report}");
    assert!(report.contains("the kernel's log:"), "{report}");
}

#[test]
fn a_kernel_that_hangs_is_a_finding_with_its_log_and_the_next_one_goes_on() {
    let place = Place::new("-plugin file");
    let mut campaign = place.fuzz("hangs", &["--runs", "5"]);
    let (output, folder) = finds(&place, campaign.env("GPAFUZZ_LAB_SECONDS", "2"), "kernel/hang");
    assert_eq!(boots(&output), 2, "{}", said(&output));
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect(name);
    assert!(read("finding.json").contains("no answer within 2s"), "{}", read("finding.json"));
    assert!(folder.join("found.log").is_file() && !folder.join("found.trace").exists());
}

#[test]
fn a_program_that_the_kernel_does_not_survive_is_minimised_if_that_is_asked_for() {
    let place = Place::new("-plugin file");
    let program = "gpafuzz-program 1\nvm stolen=40 vcpus=1 base=0x1e0 flush=works\n\
                   slot 0 create gfn=0x1e0 pages=2 hva=0x0\nv0 read 0x1e0\nslot 0 delete\nv0 read 0x1e1@1\n";
    fs::write(place.at("it.prog"), program).expect("a file");
    let mut command = place.gpafuzz("dies over deletions");
    command.args(["minimize", "it.prog", "--target", "linux-kvm-npt", "--kernel-dir", "kernel"]);
    let output = command.output().expect("gpafuzz runs");
    place.is_tidy();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let smaller = text::parse(&String::from_utf8_lossy(&output.stdout)).expect("a program");
    assert!(smaller.ops.iter().any(|op| op.kind() == OpKind::SlotDelete) && smaller.ops.len() < 4, "{}", said(&output));
    assert!(said(&output).contains("stable: it showed in all of 10 runs"), "{}", said(&output));
}

#[test]
fn a_machine_that_came_up_once_goes_on_from_there() {
    let place = Place::new("-plugin file");
    let (first, second) = (place.run("keeps"), place.run("keeps"));
    assert!(said(&first).contains("lab: booting Linux 6.99"), "{}", said(&first));
    assert!(said(&second).contains("lab: going on with Linux 6.99"), "{}", said(&second));
    assert!(!said(&second).contains("booting"), "{}", said(&second));
    assert_eq!([first.status.code(), second.status.code()], [Some(0), Some(0)]);
}

#[test]
fn a_state_that_does_not_go_on_is_forgotten_and_the_kernel_boots() {
    let place = Place::new("-plugin file");
    for behaviour in ["keeps", "keeps in vain"] {
        let output = place.run(behaviour);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert_eq!(said(&output).contains("so it boots"), behaviour == "keeps in vain", "{}", said(&output));
    }
}

#[test]
fn where_no_state_can_be_kept_it_says_so_and_goes_on() {
    let place = Place::new("-plugin file");
    for _ in 0..2 {
        let output = place.run("answers");
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(said(&output).contains("cannot be kept, so the next one boots, too"), "{}", said(&output));
    }
}

#[test]
fn an_answer_that_is_cut_short_is_a_finding_and_the_next_machine_goes_on() {
    let place = Place::new("-plugin file");
    let (output, folder) = finds(&place, &mut place.fuzz("truncates", &["--runs", "8"]), "runner/answer");
    assert!(boots(&output) > 2, "{}", said(&output));
    let report = fs::read_to_string(folder.join("report.txt")).expect("a report");
    assert!(report.contains("expected a trace of the program from the lab, found"), "{report}");
}

#[test]
fn two_labs_at_once_use_one_cache() {
    let place = Place::new("-plugin file");
    let start = |_| place.fuzz("answers", &["--runs", "40"]).spawn().expect("gpafuzz runs");
    for child in [0, 1].map(start) {
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }
    place.is_tidy();
}

#[test]
fn ctrl_c_while_it_boots_leaves_no_machine() {
    let place = Place::new("-plugin file");
    let child = place.fuzz("boots for ever", &["--runs", "1"]).spawn().expect("gpafuzz runs");
    place.wait_for_stand_in();
    interrupt(&child);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.signal(), Some(2), "{}", said(&output));
    place.is_tidy();
}

/// A campaign that has begun.
fn begun(place: &Place) -> Child {
    let mut child = place.fuzz("answers", &["--seconds", "600"]).spawn().expect("gpafuzz runs");
    let notes = BufReader::new(child.stderr.take().expect("its notes"));
    let begun = notes.lines().map_while(Result::ok).any(|line| line.starts_with("fuzzing linux-kvm-npt"));
    assert!(begun, "it never began");
    child
}

#[test]
fn ctrl_c_in_a_campaign_ends_it_with_its_results() {
    let place = Place::new("-plugin file");
    let child = begun(&place);
    interrupt(&child);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    assert!(said(&output).contains("no oracle objects"), "{}", said(&output));
    place.is_tidy();
}

#[test]
fn a_campaign_that_is_killed_takes_its_machine_with_it_and_the_next_one_clears_up() {
    let place = Place::new("-plugin file");
    let mut child = begun(&place);
    child.kill().expect("a process to kill");
    child.wait().expect("it ends");
    place.is_tidy();
    let output = place.run("answers");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}
