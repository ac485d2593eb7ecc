//! A generator of programs for one target, and what one program concentrates on.

use super::profile::Profile;
use crate::program::{OpKind, OpKinds};

/// Makes programs for one profile.
#[derive(Clone, Debug)]
pub struct Generator {
    pub(super) profile: Profile,
}

impl Generator {
    /// A generator for `profile`.
    pub fn new(profile: Profile) -> Self {
        Self { profile }
    }
}

/// What one program concentrates on: few frames, so that ops meet, and some kinds of op absent.
pub(super) struct Focus {
    pub(super) hot: [u8; 3],
    pub(super) kinds: OpKinds,
}

impl Focus {
    pub(super) const fn has(&self, kind: OpKind) -> bool {
        self.kinds.contains(kind)
    }
}
