//! `export`: a program as source code.

use super::arguments::alias_method;
use super::files;
use super::output::line;
use super::status::Status;
use crate::AliasMethod;
use crate::export::{Language, export, is_worthwhile};
use std::io::Write;
use std::path::PathBuf;

/// Print a program, or the program of a trace, as source code that does not depend on this project
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A program or a trace, as text
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// One C file that runs against /dev/kvm and prints PASS or FAIL (the default)
    #[arg(long, group = "language")]
    c: bool,
    /// A Rust test that uses this crate
    #[arg(long, group = "language")]
    rust: bool,
    /// A skeleton in the style of the kernel's KVM selftests
    #[arg(long, group = "language")]
    selftest: bool,
    /// How aliases are made [default: as in the trace; slots for a program]
    #[arg(long, alias = "realisation", value_name = "NAME", value_parser = alias_method)]
    alias_method: Option<AliasMethod>,
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write, err: &mut dyn Write) -> Status {
    let Arguments { file: path, rust, selftest, alias_method, .. } = arguments;
    let language = match (rust, selftest) {
        (true, _) => Language::Rust,
        (_, true) => Language::Selftest,
        _ => Language::C,
    };
    match files::program(path) {
        Ok((program, _)) if !is_worthwhile(&program) => {
            let expected = "expected a program with ops that real KVM can carry out, found none";
            line(err, format_args!("{}: {expected}", path.display()));
            Status::BadInput
        }
        Ok((program, recorded)) => {
            let alias_method =
                alias_method.or(recorded.map(|trace| trace.fingerprint.alias_method)).unwrap_or_default();
            // The output keeps an error.
            let _ = out.write_all(export(&program, alias_method, language).as_bytes());
            Status::Clean
        }
        Err(complaint) => {
            line(err, complaint);
            Status::BadInput
        }
    }
}
