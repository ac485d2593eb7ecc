//! Each program of `reproductions/programs` still shows the defect of the crate that its name begins with. Where one does not, the
//! crate was mended: take its line out of the known findings, and the program out of the folder.

use gpa_model::text;
use gpa_oracles::Lockstep;
use std::path::Path;

#[test]
fn every_program_shows_the_signature_that_its_last_comment_names() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("reproductions/programs");
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    // A crate that panics says so on standard error.
    std::panic::set_hook(Box::new(|_| {}));
    let shown: Vec<_> = files.iter().map(|file| shown(file)).collect();
    drop(std::panic::take_hook());
    for (file, (wanted, found)) in files.iter().zip(shown) {
        assert_eq!(found.as_ref(), Some(&wanted), "{}", file.display());
    }
}

/// The signature that the program is to show, and the one it shows.
fn shown(file: &Path) -> (String, Option<String>) {
    let source = std::fs::read_to_string(file).unwrap();
    let program = text::parse(&source).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    assert_eq!(text::print(&program), source, "{} does not print back as it stands", file.display());
    let name = file.file_stem().unwrap().to_str().unwrap();
    let adapter = third_party::ALL.iter().find(|adapter| name.split('_').next() == Some(adapter.name));
    let mut mmu = (adapter.unwrap_or_else(|| panic!("{name} begins with no adapter's name")).open)();
    let violation = Lockstep::default().run(&mut mmu, &program);
    let wanted = program.comment.last().and_then(|line| line.strip_prefix("shows ")).map(str::to_owned);
    let wanted = wanted.unwrap_or_else(|| panic!("{name}: the last comment says what it shows"));
    (wanted, violation.map(|violation| violation.signature.to_string()))
}
