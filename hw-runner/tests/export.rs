//! Programs as source code: what it looks like.

use gpa_model::text;
use hw_runner::AliasMethod;
use hw_runner::export::{Language, export};

#[test]
fn a_comment_cannot_end_the_comment_of_the_source() {
    let text = "gpafuzz-program 1\n# */ int x; /*\nvm stolen=none vcpus=1 base=0x1e0 flush=works\n";
    let source = export(&text::parse(text).expect("a program"), AliasMethod::Slots, Language::C);
    assert!(source.starts_with("/*\n * gpafuzz-program 1\n * # * / int x; / *\n"), "{source}");
}

#[test]
fn the_rust_test_and_the_selftest_skeleton() {
    let text = "gpafuzz-program 1\nvm stolen=40 vcpus=1 base=0x1e0 flush=works\n\
                slot 0 create gfn=0x1e0 pages=2 hva=0x0\nv0 write 0x1e1@1\nunmap hva=0x1 pages=1 by=fork\nv0 read 0x1e1\n";
    let program = text::parse(text).expect("a program");
    insta::assert_snapshot!("rust", export(&program, AliasMethod::GuestPtes, Language::Rust));
    insta::assert_snapshot!("selftest", export(&program, AliasMethod::Slots, Language::Selftest));
}
