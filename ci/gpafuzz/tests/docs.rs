//! What the documents say is true: sessions go as they are written, programs run, command lines can be carried out, and the index of
//! the corpus lists what is there.
//!
//! `TRYCMD=overwrite` writes the sessions anew, `UPDATE_INDEX=1` the index.

use gpa_model::{OpKind, Program, text};
use gpa_oracles::Lockstep;
use kvm_mmu::{Corrected, KvmMmu};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The top of the sources.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(folder: &str, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).expect("a folder");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.to_string_lossy().ends_with(end));
    files.sort();
    files
}

/// The README and the documents.
fn documents() -> Vec<PathBuf> {
    [vec![root().join("README.md")], files("ci/gpafuzz/docs", ".md")].concat()
}

/// The fenced blocks of a document, each with its language.
fn blocks(path: &Path) -> Vec<(String, String)> {
    let text = read(path);
    let parts: Vec<&str> = text.split("```").collect();
    let inside = parts.iter().skip(1).step_by(2).filter_map(|block| block.split_once('\n'));
    inside.map(|(language, body)| (language.to_owned(), body.to_owned())).collect()
}

/// The commands in them are run at the top of the sources.
#[test]
fn sessions_go_as_written() {
    std::env::set_current_dir(root()).expect("the top of the sources");
    trycmd::TestCases::new()
        .register_bin("gpafuzz", Path::new(env!("CARGO_BIN_EXE_gpafuzz")))
        .case("README.md")
        .case("ci/gpafuzz/docs/*.md");
}

#[test]
fn programs_run_and_show_every_op() {
    let (mut shown, mut run) = (BTreeSet::new(), Lockstep::default());
    for path in documents() {
        for (_, block) in blocks(&path).iter().filter(|(_, block)| block.starts_with(text::MAGIC)) {
            let program: Program =
                text::parse(block).unwrap_or_else(|error| panic!("{}: {error}\n{block}", path.display()));
            let violation = run.run(&mut KvmMmu::<Corrected>::default(), &program);
            assert_eq!(violation.map(|violation| violation.to_string()), None, "{}\n{block}", path.display());
            if path.ends_with("program-format.md") {
                shown.extend(program.ops.iter().map(|op| op.kind().name()));
            }
        }
    }
    let missing: Vec<&str> = OpKind::ALL.iter().map(|kind| kind.name()).filter(|name| !shown.contains(name)).collect();
    assert_eq!(missing, [""; 0], "ops without an example in program-format.md");
}

#[test]
fn command_lines_can_be_carried_out() {
    let mut checked = 0;
    for path in documents() {
        for (_, block) in blocks(&path).iter().filter(|(language, _)| language == "sh") {
            for line in block.lines().map(|line| line.split(" #").next().unwrap_or(line).trim()) {
                let words = line.strip_prefix("gpafuzz").or(line.strip_prefix("cargo run --release --"));
                if let Some(words) = words.filter(|words| words.starts_with(' ')) {
                    let words = ["gpafuzz"].into_iter().chain(words.split_whitespace());
                    assert!(gpafuzz::cli::check(words).is_ok(), "{}: {line}", path.display());
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 5, "{checked} command lines");
}

/// What a seed or regression shows: the law of a bad one, and the first line of its comment.
fn shown(path: &Path) -> (Option<String>, String) {
    let program = text::parse(&read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let law =
        program.comment.iter().find_map(|line| line.strip_prefix("bad on ")?.split_once(": ").map(|(_, law)| law));
    (law.map(str::to_owned), program.comment.first().cloned().unwrap_or_default())
}

fn index() -> String {
    let link = |path: &Path| {
        let (folder, name) = (path.parent().and_then(Path::file_name), path.file_name());
        let [folder, name] = [folder, name].map(|part| part.unwrap_or_default().to_string_lossy().into_owned());
        format!("[{}]({folder}/{name})", name.trim_end_matches(".prog"))
    };
    let (mut laws, mut rest): (BTreeMap<String, Vec<String>>, Vec<String>) = Default::default();
    for path in [files("corpus/seeds", ".prog"), files("corpus/regressions", ".prog")].concat() {
        match shown(&path) {
            (Some(law), _) => laws.entry(law).or_default().push(link(&path)),
            (None, comment) => rest.push(format!("| {} | {comment} |\n", link(&path))),
        }
    }
    let laws: String = laws.iter().map(|(law, links)| format!("| `{law}` | {} |\n", links.join(", "))).collect();
    format!(
        "| law | programs that break it |\n|---|---|\n{laws}\n| program | what it shows |\n|---|---|\n{}",
        rest.concat()
    )
}

#[test]
fn the_index_of_the_corpus_lists_what_is_there() {
    let path = root().join("corpus/README.md");
    let text = read(&path);
    let (head, rest) = text.split_once("<!-- index -->\n").expect("where the index begins");
    let (found, tail) = rest.split_once("<!-- end of index -->").expect("where it ends");
    let wanted = format!("\n{}\n", index());
    if std::env::var_os("UPDATE_INDEX").is_some() {
        let text = format!("{head}<!-- index -->\n{wanted}<!-- end of index -->{tail}");
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    } else {
        assert_eq!(found, wanted, "corpus/README.md: expected the index of what is there; UPDATE_INDEX=1 writes it");
    }
}
