//! Upstream's design.

use super::decisions::{Family, Policy};

/// The design of Linux's TDP MMU since 6.14: at most one stolen bit, and a root for each alias.
#[derive(Clone, Copy, Debug, Default)]
pub struct DirectMirror;

impl Policy for DirectMirror {
    fn family(&self) -> Family {
        Family::Tdp
    }
}
