//! The kinds of op, and sets of them: which a target can be given, and which a program has.

#[cfg(doc)]
use super::{Op, SlotChange};
use crate::variants::all;
use strum::{EnumCount, IntoStaticStr, VariantArray};

/// The kinds of [`Op`], for weights, statistics and signatures.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, EnumCount, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
#[repr(u8)]
pub enum OpKind {
    /// [`SlotChange::Create`], whole or begun.
    SlotCreate,
    /// [`SlotChange::Delete`], whole or begun.
    SlotDelete,
    /// [`SlotChange::Move`], whole or begun.
    SlotMove,
    /// [`SlotChange::Flags`], whole or begun.
    SlotFlags,
    /// [`Op::SlotAliased`].
    SlotAliased,
    /// [`Op::SlotEnd`].
    SlotEnd,
    /// A read.
    Read,
    /// A write.
    Write,
    /// An instruction fetch.
    Execute,
    /// [`Op::FaultBegin`].
    FaultBegin,
    /// [`Op::FaultEnd`].
    FaultEnd,
    /// [`Op::Prefault`].
    Prefault,
    /// [`Op::Unmap`].
    Unmap,
    /// [`Op::UnmapBegin`].
    UnmapBegin,
    /// [`Op::UnmapEnd`].
    UnmapEnd,
    /// [`Op::Collapse`].
    Collapse,
    /// [`Op::PageOut`].
    PageOut,
    /// [`Op::PageIn`].
    PageIn,
    /// [`Op::ProtNone`].
    ProtNone,
    /// [`Op::Age`].
    Age,
    /// [`Op::DirtyGet`].
    DirtyGet,
    /// [`Op::DirtyClear`].
    DirtyClear,
    /// [`Op::WriteProtect`].
    WriteProtect,
    /// [`Op::WriteTrack`].
    #[strum(serialize = "track")]
    WriteTrack,
    /// [`Op::WriteUntrack`].
    #[strum(serialize = "untrack")]
    WriteUntrack,
    /// [`Op::Attributes`], whole or begun.
    Attributes,
    /// [`Op::AttributesEnd`].
    AttributesEnd,
    /// [`Op::MemoryType`].
    MemoryType,
    /// [`Op::ZapBegin`].
    ZapBegin,
    /// [`Op::ZapEnd`].
    ZapEnd,
    /// [`Op::NxRecover`].
    NxRecover,
    /// [`Op::MmuPages`].
    MmuPages,
    /// [`Op::Backend`].
    Backend,
    /// [`Op::Translate`].
    Translate,
    /// [`Op::WriteGpte`].
    WriteGpte,
    /// [`Op::GuestWalk`].
    GuestWalk,
    /// [`Op::GuestAccess`].
    GuestAccess,
    /// [`Op::GuestFlush`].
    GuestFlush,
    /// [`Op::PageReady`].
    PageReady,
    /// [`Op::AsyncPfClear`].
    AsyncPfClear,
}

impl OpKind {
    /// Every kind, in declaration order.
    pub const ALL: [OpKind; OpKind::COUNT] = all(OpKind::VARIANTS);

    /// The name used in signatures and tables.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

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
