//! Coverage a person reads: which op came to which outcome, under which name of a frame, and what kind of slot lay there.
//!
//! [`Coverage`] counts as an oracle that never objects, asked before the others. A run without it does not know of it and
//! pays nothing.

use super::lockstep::Lockstep;
use crate::laws::all;
use crate::observe::{Clause, Objection, Oracle, Step, Tally};
use gpa_model::{Exit, Op, OpKind, SlotId, SlotKind};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What stands where an op is about no address or no slot.
const NONE: &str = "none";

/// What an op came to, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Situation {
    /// The op.
    pub op: OpKind,
    /// Its outcome.
    pub outcome: &'static str,
    /// Whether the address it is about is `base`, an `alias`, or there is `none`. A translation counts as an alias if one
    /// of its two entries is, a guest walk if its root is.
    pub alias: &'static str,
    /// What kind of slot is behind that address, or behind the slot or gfn that the op names, after the op; or `none`.
    pub slot: &'static str,
    /// How much the leaf translates that translates the accessed address after the op; or `none`.
    pub level: &'static str,
}

/// Counts every judged op by its [`Situation`]. A clone counts into the same place, so that one can be given away.
#[derive(Clone, Debug, Default)]
pub struct Coverage(Arc<Mutex<BTreeMap<Situation, u64>>>);

impl Coverage {
    /// A run that is judged by all oracles and counts here.
    pub fn lockstep(&self) -> Lockstep {
        let mut oracles = all();
        oracles.insert(0, Box::new(self.clone()));
        Lockstep::new(oracles)
    }

    /// The situations that came up, in order, with how often.
    pub fn counts(&self) -> BTreeMap<Situation, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Oracle for Coverage {
    fn name(&self) -> &'static str {
        "coverage"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[]
    }

    fn check(&mut self, step: &Step<'_>, _: &mut [Tally]) -> Result<(), Objection> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(situation(step)).or_default() += 1;
        Ok(())
    }
}

fn situation(step: &Step<'_>) -> Situation {
    let (alias, slot) = place(step);
    let leaf = step
        .accessed_frame()
        .and_then(|(frame, alias)| step.view.now(step.model.vm().stolen().alias_index(alias), frame));
    let level = leaf.map_or(NONE, |spte| spte.level().name());
    Situation { op: step.op.kind(), outcome: outcome(&step.exit), alias, slot, level }
}

/// The alias class and the slot kind.
fn place(step: &Step<'_>) -> (&'static str, &'static str) {
    let (model, vm) = (step.model, step.model.vm());
    let class = |aliased: bool| if aliased { "alias" } else { "base" };
    let at = |frame: Option<usize>| frame.map_or(NONE, |frame| model.slot_kind(frame).name());
    let is_aliased = |gpa| !vm.stolen().split(gpa).1.is_none();
    if let Some(gpa) = step.accessed {
        return (class(is_aliased(gpa)), at(vm.locate(gpa).map(|(frame, _)| frame)));
    }
    let of = |id: SlotId| {
        let private = id.is_internal().then_some(SlotKind::Internal.name());
        private.unwrap_or_else(|| at(model.slot_frames(id).first()))
    };
    match *step.op {
        Op::Translate { table, leaf, .. } => {
            (class(is_aliased(table) || is_aliased(leaf)), at(vm.locate(leaf).map(|(frame, _)| frame)))
        }
        Op::GuestWalk { root, .. } | Op::GuestAccess { root, .. } => {
            (class(is_aliased(root)), at(vm.locate(root).map(|(frame, _)| frame)))
        }
        Op::SlotAliased { id, gpa, .. } => (class(is_aliased(gpa)), of(id)),
        Op::Slot { id, .. } | Op::SlotBegin { id, .. } | Op::DirtyGet { id } => (NONE, of(id)),
        Op::DirtyClear { gfn, .. }
        | Op::Attributes { gfn, .. }
        | Op::AttributesBegin { gfn, .. }
        | Op::MemoryType { gfn, .. }
        | Op::ZapBegin { gfn, .. }
        | Op::WriteProtect { gfn }
        | Op::WriteTrack { gfn }
        | Op::WriteUntrack { gfn } => (NONE, at(vm.frame(gfn))),
        Op::SlotEnd
        | Op::Access { .. }
        | Op::WriteGpte { .. }
        | Op::FaultBegin { .. }
        | Op::FaultEnd { .. }
        | Op::Prefault { .. }
        | Op::Unmap { .. }
        | Op::UnmapBegin { .. }
        | Op::UnmapEnd { .. }
        | Op::Collapse { .. }
        | Op::PageOut { .. }
        | Op::PageIn { .. }
        | Op::ProtNone { .. }
        | Op::Age { .. }
        | Op::AttributesEnd
        | Op::ZapEnd
        | Op::NxRecover
        | Op::GuestFlush { .. }
        | Op::PageReady { .. }
        | Op::AsyncPfClear { .. }
        | Op::MmuPages { .. }
        | Op::Backend(_) => (NONE, NONE),
    }
}

fn outcome(exit: &Exit) -> &'static str {
    match exit {
        Exit::Dirty(frames) if frames.is_empty() => "clean",
        Exit::Young(false) => "idle",
        Exit::GuestFault(fault) => fault.name(),
        _ => exit.name(),
    }
}
