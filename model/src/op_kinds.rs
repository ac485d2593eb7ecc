//! Sets of kinds of op: which a target can be given, and which a program has.

use crate::op::OpKind;

/// A set of [`OpKind`]s.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpKinds(u64);

impl OpKinds {
    /// Every kind.
    pub const ALL: OpKinds = OpKinds(u64::MAX);

    /// Just these.
    pub fn of(kinds: &[OpKind]) -> Self {
        kinds.iter().fold(Self(0), |set, &kind| set.with(kind))
    }

    /// Whether `kind` is in the set.
    pub const fn contains(self, kind: OpKind) -> bool {
        self.0 >> kind as u32 & 1 != 0
    }

    /// The same with `kind`.
    #[must_use]
    pub const fn with(self, kind: OpKind) -> Self {
        Self(self.0 | 1 << kind as u32)
    }

    /// The same without `kind`.
    #[must_use]
    pub const fn without(self, kind: OpKind) -> Self {
        Self(self.0 & !(1 << kind as u32))
    }

    /// The kinds in both.
    #[must_use]
    pub const fn intersect(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

const _: () = assert!(OpKind::ALL.len() <= u64::BITS as usize);
