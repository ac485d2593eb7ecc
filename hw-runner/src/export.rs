//! A program as source code that needs nothing of this project: what a kernel developer runs, mails, or makes a test of.
//!
//! What each op must come to is worked out here, by the reference model, and stands in the source. So the source says PASS
//! wherever KVM keeps the promise that every name of a frame is that frame.

mod c;
mod rust;
mod selftest;
mod steps;

use crate::kvm::alias_method::AliasMethod;
use gpa_model::Program;

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// One C file that runs against `/dev/kvm`, with no headers but the C library's and the kernel's.
    C,
    /// A Rust test that runs the program by this crate.
    Rust,
    /// A skeleton in the style of the kernel's KVM selftests, to be finished by hand.
    Selftest,
}

/// `program` as source code, with its aliases made by `alias_method`.
pub fn export(program: &Program, alias_method: AliasMethod, language: Language) -> String {
    match language {
        Language::C => c::source(program, alias_method),
        Language::Rust => rust::source(program, alias_method),
        Language::Selftest => selftest::source(program, alias_method),
    }
}

/// Whether real KVM can carry out any of `program`; otherwise its source would pass and mean nothing.
pub fn is_worthwhile(program: &Program) -> bool {
    !steps::steps(program, AliasMethod::default(), false).is_empty()
}
