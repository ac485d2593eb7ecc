//! What commands print, and their exit status: each file of `tests/cmd` is a session.
//!
//! `TRYCMD=overwrite cargo test --release -p gpafuzz --test commands` writes what is printed now; compare it.

#[test]
fn sessions_go_as_written() {
    trycmd::TestCases::new().case("tests/cmd/*.trycmd");
}
