//! `export`: a program as source code.

use super::{Status, files, line};
use crate::AliasMethod;
use crate::export::{Language, export, is_worthwhile};
use std::io::Write;
use std::path::Path;

pub(super) fn run(
    path: &Path,
    alias_method: Option<AliasMethod>,
    language: Language,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Status {
    match files::program(path) {
        Ok((program, _)) if !is_worthwhile(&program) => {
            let expected =
                "expected a program of which real KVM can carry something out, found none of its ops to be so";
            line(err, format_args!("{}: {expected}", path.display()));
            Status::BadInput
        }
        Ok((program, recorded)) => {
            let alias_method =
                alias_method.or(recorded.map(|trace| trace.fingerprint.alias_method)).unwrap_or_default();
            // A reader that went away wants no more of it.
            let _ = out.write_all(export(&program, alias_method, language).as_bytes());
            Status::Clean
        }
        Err(complaint) => {
            line(err, complaint);
            Status::BadInput
        }
    }
}
