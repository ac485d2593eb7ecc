//! Programs as source code: it compiles without warnings, and agrees with the oracles about this host's KVM.

use crate::{Outcome, Skipped, skip, trial, trials};
use gpa_model::{Program, text};
use hw_runner::AliasMethod;
use hw_runner::export::{Language, export};
use libtest_mimic::Trial;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = trials![
        exported_c_passes_where_the_oracles_have_nothing_to_object,
        exported_c_holds_faults_open,
        exported_c_goes_on_without_a_reclaim_that_is_lacking,
        exported_c_fails_where_kvm_does_something_else,
    ];
    for alias_method in AliasMethod::ALL {
        let name = format!("exported_c_runs_with_{alias_method}");
        trials.push(trial(&name, move || exported_c_runs_with(alias_method)));
    }
    trials
}

/// No `/dev/kvm`, or not what the program needs.
const ABSENT: i32 = 3;

/// Compiles `source` and runs it: exit status and output.
fn compile_and_run(source: &str) -> Result<(i32, String), Skipped> {
    let dir = tempfile::tempdir().expect("a folder");
    let (file, program) = (dir.path().join("p.c"), dir.path().join("p"));
    fs::write(&file, source).expect("a file");
    let compiler =
        Command::new("gcc").args(["-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&program).arg(&file).output();
    let output = match compiler {
        Err(error) if error.kind() == ErrorKind::NotFound => return skip("there is no gcc"),
        output => output.expect("gcc runs"),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = Command::new(&program).output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let status = output.status.code().expect("an exit status");
    if status == ABSENT {
        return skip(said.trim_end().trim_start_matches("SKIPPED: "));
    }
    Ok((status, said))
}

fn seeds() -> Vec<(PathBuf, Program)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/seeds");
    let entries = fs::read_dir(&dir).expect("the corpus").map(|entry| entry.expect("an entry").path());
    let hardware = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("hw_"));
    let mut paths: Vec<_> = entries.filter(hardware).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let program = text::parse(&fs::read_to_string(&path).expect("a file")).expect("a program");
        (path, program)
    };
    paths.into_iter().map(read).collect()
}

fn exported_c_passes_where_the_oracles_have_nothing_to_object() -> Outcome {
    for (n, (path, program)) in seeds().into_iter().enumerate() {
        // Each seed with one of the alias methods that every KVM offers, in turn, because gcc is slow. Shared
        // memory is reclaimed in other ways.
        let ways = [
            AliasMethod::Slots,
            AliasMethod::GuestPtes,
            AliasMethod::Rings,
            AliasMethod::Ioeventfds,
            AliasMethod::Memfd,
        ];
        let reclaims = text::print(&program).contains(" by=");
        let alias_method = ways[n % if reclaims { 4 } else { 5 }];
        let (status, said) = compile_and_run(&export(&program, alias_method, Language::C))?;
        let noted = ["not held open", "discarded instead", "left out"];
        let passes = said.lines().all(|line| line == "PASS" || noted.iter().any(|note| line.contains(note)));
        assert!(status == 0 && passes, "{} by {alias_method}: {said}", path.display());
    }
    Ok(())
}

/// Each alias method compiles, and runs where it works. Otherwise the output says what is missing.
fn exported_c_runs_with(alias_method: AliasMethod) -> Outcome {
    let text = "gpafuzz-program 1\nvm stolen=40 vcpus=1 base=0x1e0 flush=works\n\
                slot 0 create gfn=0x1e0 pages=2 hva=0x0 log-dirty\nv0 write 0x1e1@1\ndirty-get 0\nv0 read 0x1e1\n";
    let program = text::parse(text).expect("a program");
    let (status, said) = compile_and_run(&export(&program, alias_method, Language::C))?;
    // On a kernel that strips nothing the alias is a hole.
    let wanted = if alias_method == AliasMethod::Native { 1 } else { 0 };
    assert_eq!(status, wanted, "{said}");
    Ok(())
}

/// A held fault finds what is there when it ends, and not what was there when it began.
fn exported_c_holds_faults_open() -> Outcome {
    let text = "gpafuzz-program 1\nvm stolen=40 vcpus=2 base=0x1e0 flush=works\nslot 0 create gfn=0x1e0 pages=4 hva=0x0\n\
                v1 fault-begin write 0x1e1@1\nunmap hva=0x1 pages=1\nunmap hva=0x0 pages=2 by=munmap\nv1 fault-end\nv0 read 0x1e1\n";
    let program = text::parse(text).expect("a program");
    for alias_method in [AliasMethod::Slots, AliasMethod::Memfd, AliasMethod::GuestPtes] {
        let source = export(&program, alias_method, Language::C);
        let (begin, end) = ("fault_begin(1, 1, WRITE, 0x1e1, 1, 1, 2, ", "fault_end(67, ");
        assert!(source.contains(begin) && source.contains(end), "{source}");
        let (status, said) = compile_and_run(&source)?;
        assert_eq!(status, 0, "{alias_method}: {said}");
        if said.contains("not held open") {
            return skip(said);
        }
        // Only the page at the end of the fault matters.
        let (status, said) = compile_and_run(&source.replace(begin, &begin.replace("1, 2,", "1, 9,")))?;
        assert_eq!((status, said.as_str()), (0, "PASS\n"), "{alias_method}");
        let (status, said) = compile_and_run(&source.replace(end, "fault_end(2, "))?;
        assert_eq!(status, 1, "{alias_method}: {said}");
        assert!(said.starts_with("op 1: found page 0x43, expected page 0x43\n"), "{alias_method}: {said}");
    }
    Ok(())
}

/// The output says which op a host cannot do; the rest is done and judged. Private memory has no file to punch
/// a hole in.
fn exported_c_goes_on_without_a_reclaim_that_is_lacking() -> Outcome {
    let text = "gpafuzz-program 1\nvm stolen=40 vcpus=1 base=0x1e0 flush=works\nslot 0 create gfn=0x1e0 pages=2 hva=0x0\n\
                v0 read 0x1e1\nunmap hva=0x1 pages=1 by=punch-hole\nv0 read 0x1e1@1\n";
    let source = export(&text::parse(text).expect("a program"), AliasMethod::Slots, Language::C);
    let note = "op 2: cannot punch a hole into private memory: Bad file descriptor; the pages are discarded instead\n";
    let (status, said) = compile_and_run(&source)?;
    assert_eq!((status, said), (0, format!("{note}PASS\n")));
    let (new, old) = ("access_(3, 0, READ, 0x1e1, 1, 65,", "access_(3, 0, READ, 0x1e1, 1, 2,");
    assert!(source.contains(new), "{source}");
    let (status, said) = compile_and_run(&source.replace(new, old))?;
    assert_eq!(status, 1, "{said}");
    assert!(said.starts_with(note) && said.contains("op 3: found page 0x41") && said.ends_with("FAIL\n"), "{said}");
    Ok(())
}

/// The positive control: source code with a wrong expectation fails, and says at which op and why.
fn exported_c_fails_where_kvm_does_something_else() -> Outcome {
    let text = "gpafuzz-program 1\nvm stolen=40 vcpus=1 base=0x1e0 flush=works\n\
                slot 0 create gfn=0x1e0 pages=2 hva=0x0 log-dirty\nv0 write 0x1e1@1\nv0 read 0x1e4\nv0 write 0x1e5@1\ndirty-get 0\n";
    let program = text::parse(text).expect("a program");
    let (slots, rings, ioeventfds) = (AliasMethod::Slots, AliasMethod::Rings, AliasMethod::Ioeventfds);
    let dirty = ("dirty_get(4, 0, 0x2UL, 0x2UL", "dirty_get(4, 0, 0x1UL, 0x2UL", "op 4: found dirty frames 0x2");
    let lies = [
        (slots, ("WRITE, 0x1e1, 1, 2, NONE", "WRITE, 0x1e1, 1, 3, NONE", "op 1: found page 0x2")),
        (slots, ("READ, 0x1e4, 0, NONE, 0x1e4", "READ, 0x1e4, 0, NONE, 0x1e5", "op 2: found an exit for gpa 0x1e4008")),
        (slots, dirty),
        (rings, dirty),
        (
            ioeventfds,
            ("WRITE, 0x1e5, 1, NONE, 0x1e5", "WRITE, 0x1e5, 1, NONE, NONE", "op 3: found an eventfd signalled for gpa"),
        ),
        (
            ioeventfds,
            ("WRITE, 0x1e1, 1, 2, NONE", "WRITE, 0x1e1, 1, 2, 0x1e1", "op 1: found no eventfd signalled for gpa"),
        ),
    ];
    for (alias_method, (truth, lie, complaint)) in lies {
        let source = export(&program, alias_method, Language::C);
        assert!(source.contains(truth), "{truth} in\n{source}");
        let (status, said) = compile_and_run(&source.replace(truth, lie))?;
        assert_eq!(status, 1, "{said}");
        assert!(said.contains(complaint) && said.ends_with("FAIL\n"), "{said}");
    }
    Ok(())
}
