//! Commands that run programs: what each prints, and its exit status.

use crate::command::{TRACE, hw_runner};
use crate::{Outcome, skip, trials};
use hw_runner::cli::Status;
use libtest_mimic::Trial;
use std::fs;

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    trials![
        run_says_where_a_trace_was_recorded_otherwise,
        record_writes_whole_traces_that_verify,
        stress_says_what_it_did_and_finds_nothing,
        an_alias_method_that_is_not_here_is_absent_when_asked_for_by_name,
        probe_says_what_is_here_and_what_is_not,
    ]
}

/// The recording is wrong and KVM right, so the model explains the new run.
fn run_says_where_a_trace_was_recorded_otherwise() -> Outcome {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("x.trace");
    let file = path.to_str().expect("a path");
    fs::write(&path, TRACE.replace("dirty 0x1e1", "dirty none")).expect("a file");
    let (status, said) = hw_runner(dir.path(), &["run", file, "--times", "3"]);
    if status == Status::Absent {
        return skip(said.trim_end());
    }
    assert_eq!(status, Status::Clean, "{said}");
    assert!(
        said.ends_with("x.trace: op 3, `dirty-get 0`: recorded dirty none, found dirty 0x1e1: explained\n"),
        "{said}"
    );
    Ok(())
}

fn record_writes_whole_traces_that_verify() -> Outcome {
    let dir = tempfile::tempdir().expect("a folder");
    let traces = dir.path().join("made").join("here");
    let program = dir.path().join("p.prog");
    let text = "gpafuzz-program 1\nvm stolen=40 vcpus=1 base=0x1e0 flush=works\n\
                slot 0 create gfn=0x1e0 pages=2 hva=0x0\nv0 write 0x1e1@1\nv0 read 0x1e1\n";
    fs::write(&program, text).expect("a file");
    let (program, here) = (program.to_str().expect("a path"), traces.to_str().expect("a path"));
    let (status, said) = hw_runner(dir.path(), &["record", program, "-o", here]);
    if status == Status::Absent {
        return skip(said.trim_end());
    }
    assert_eq!(status, Status::Clean, "{said}");
    let names: Vec<_> =
        fs::read_dir(&traces).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(names, ["p.trace"], "the trace, and nothing beside it");
    let trace = traces.join("p.trace");
    let (status, said) = hw_runner(dir.path(), &["verify", trace.to_str().expect("a path")]);
    assert_eq!(status, Status::Clean, "{said}");
    Ok(())
}

fn stress_says_what_it_did_and_finds_nothing() -> Outcome {
    let dir = tempfile::tempdir().expect("a folder");
    let (status, said) = hw_runner(dir.path(), &["stress", "--seconds", "1", "--alias-method", "guest-ptes"]);
    if status == Status::Absent {
        return skip(said.trim_end());
    }
    assert_eq!(status, Status::Clean, "{said}");
    assert!(said.starts_with("aliases by guest-ptes: 2 vCPUs, ") && said.ends_with("  0 findings\n"), "{said}");
    Ok(())
}

fn an_alias_method_that_is_not_here_is_absent_when_asked_for_by_name() -> Outcome {
    let dir = tempfile::tempdir().expect("a folder");
    let (status, said) = hw_runner(dir.path(), &["stress", "--seconds", "1", "--alias-method", "native"]);
    if status == Status::Clean {
        return skip("this kernel strips stolen bits");
    }
    assert_eq!(status, Status::Absent, "{said}");
    Ok(())
}

fn probe_says_what_is_here_and_what_is_not() -> Outcome {
    let dir = tempfile::tempdir().expect("a folder");
    let (status, said) = hw_runner(dir.path(), &["probe"]);
    if status == Status::Absent {
        return skip(said.trim_end());
    }
    assert_eq!(status, Status::Clean, "{said}");
    let begins = |start: &str| said.lines().any(|line| line.starts_with(start));
    for start in ["native        ", "internal      task state segment ", "aliases by slots: stolen bits 39"] {
        assert!(begins(start), "{start}: {said}");
    }
    for alias_method in hw_runner::AliasMethod::ALL {
        assert!(begins(&format!("aliases by {alias_method}: ")), "{alias_method}: {said}");
    }
    Ok(())
}
