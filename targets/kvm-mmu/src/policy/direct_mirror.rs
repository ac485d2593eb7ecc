//! Upstream's design.

use super::decisions::{Family, Policy};

/// Linux's TDP MMU since 6.14: at most one bit is stolen, and each name of a frame has a root of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct DirectMirror;

impl Policy for DirectMirror {
    fn family(&self) -> Family {
        Family::Tdp
    }
}
