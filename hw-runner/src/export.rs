//! A program as source code that does not depend on this project, for a kernel developer to run, mail, or turn into a test.
//!
//! The reference model computes what each op must return, and the source contains that. So the source prints PASS on each
//! KVM on which every name of a frame leads to that frame.

mod c;
mod rust;
mod selftest;
mod steps;

use crate::kvm::alias_method::AliasMethod;
use gpa_model::Program;

/// The kind of source code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// One C file that runs against `/dev/kvm`; it needs only the C library and kernel headers.
    C,
    /// A Rust test that uses this crate.
    Rust,
    /// A skeleton in the style of the kernel's KVM selftests, to be completed by hand.
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

/// Whether real KVM can carry out any op of `program`. Without one its source would pass and prove nothing.
pub fn is_worthwhile(program: &Program) -> bool {
    !steps::steps(program, AliasMethod::default(), false).is_empty()
}
