//! `alias_flush`: the worst-case TLB. It has cached every translation that was ever visible, on every vCPU, and drops only
//! what is flushed; when an op returns it must hold nothing unsound, for any alias.
//!
//! What the tables show now is in every TLB by assumption and judged by the other oracles. What this oracle keeps are the
//! *stale* translations: shown once, changed or zapped since, not flushed. A stale translation is no offence in itself; it
//! is one when the guest is not entitled to it any more, or when the op promised to take the right to write.
//!
//! What a TLB caches is a leaf, of whatever level: one entry for all that it translates. A range flush drops it only if the
//! range covers all of that. Some hardware drops a large entry that a range merely touches, some keeps its own smaller pieces of
//! it; a flush that covers the whole leaf is right on either, and what Linux came to do (1b2dc7360463 and what goes with it).
//! So a large entry outlives the flush of one of its pages, even if smaller leaves with the same pages have taken its place in
//! the tables since.
//!
//! What an op took away is flushed before others have their turn in the middle of it, and before a table page is freed that it hung from,
//! whether or not the guest is still entitled to it.
//!
//! A stale page that one defect of Linux's own explains has a clause of its own (`started_over.rs`), so that nothing else is taken for it.
//!
//! A TLB may be filled at any time, also within an op, from the tables as they are at that point. So a flush drops nothing that the
//! tables still show when it is made. A target that does not show its tables at each flush is taken to flush after its changes.
//!
//! Pages that a program of the guest reached through shadowed tables are kept by guest virtual address (`virtual_tlb.rs`).

mod started_over;
mod tlb;
mod virtual_tlb;

use super::soundness::{instead, is_sound};
use crate::observe::{Blame, Clause, Objection, Oracle, Step, Tally};
use gpa_model::limits::ALIASES;
use gpa_model::{Entitled, Exit, FrameSet, Op, Rights};
use tlb::{Stale, Tlb};
use virtual_tlb::VirtualTlb;

const STALE_PAGE: usize = 0;
const STALE_WRITE: usize = 1;
const STALE_ACCESS: usize = 2;
const YIELD: usize = 3;
const FREE: usize = 4;
const STARTED_OVER: usize = 5;
const ORDER: usize = 6;
const SIZE: usize = 7;
const LOST_WRITE: usize = 8;
const VIRTUAL: usize = 9;

/// The oracle `alias_flush`.
#[derive(Debug, Default)]
pub struct AliasFlush {
    tlb: Tlb,
    virtual_tlb: VirtualTlb,
    /// Frames that were reached through each alias, so that a TLB may hold them.
    reached: [FrameSet; ALIASES],
    /// Those of them whose entitlement has changed since.
    outdated: [FrameSet; ALIASES],
}

/// What happens to a stale translation within an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judged {
    /// The tables lost it.
    Lost,
    /// A flush dropped it on every vCPU.
    Flushed,
    /// A table page was freed while a TLB may still hold it.
    Freed,
}

impl Oracle for AliasFlush {
    fn name(&self) -> &'static str {
        "alias_flush"
    }

    fn clauses(&self) -> &'static [Clause] {
        const {
            &[
                Clause::flushes("stale-page"),
                Clause::flushes("stale-write"),
                Clause::exits("stale-access"),
                Clause::flushes("yield"),
                Clause::order("free"),
                Clause::flushes("started-over"),
                Clause::order("order"),
                Clause::flushes("size"),
                Clause::shadow_flushes("lost-write"),
                Clause::shadow_flushes("virtual"),
            ]
        }
    }

    fn reset(&mut self) {
        self.tlb.reset();
        self.virtual_tlb.reset();
        self.reached = [FrameSet::EMPTY; ALIASES];
        self.outdated = [FrameSet::EMPTY; ALIASES];
    }

    fn check(&mut self, step: &Step<'_>, tally: &mut [Tally]) -> Result<(), Objection> {
        self.check_access(step, &mut tally[STALE_ACCESS])?;
        if !step.capabilities.tables || !step.capabilities.flushes {
            note_unsupported(step, tally);
            return Ok(());
        }
        self.check_virtual(step, &mut tally[VIRTUAL])?;
        if self.tlb.stale.is_empty() && step.view.is_unchanged() && step.events.is_empty() {
            return Ok(());
        }
        // What was left before could have been objected to at every op since.
        self.tlb.stale.iter().for_each(|stale| note_at_stake(step, stale, tally));
        self.tlb.replay(step, &mut |judged, stale| {
            match judged {
                Judged::Lost => note_at_stake(step, stale, tally),
                Judged::Flushed if stale.since == step.at => note_flushed(step, stale, tally),
                Judged::Flushed => {}
                Judged::Freed => {
                    tally[FREE].check();
                    return object(step, stale, FREE, "the table page that held it may be another's now");
                }
            }
            Ok(())
        })?;
        // What is explained hides nothing that is not.
        let mut explained = Ok(());
        for stale in &self.tlb.stale {
            match judge(step, stale) {
                Err(objection) if objection.clause == STARTED_OVER => explained = explained.and(Err(objection)),
                judged => judged?,
            }
        }
        explained
    }
}

/// Count what a target without tables or flushes cannot show.
fn note_unsupported(step: &Step<'_>, tally: &mut [Tally]) {
    if !step.allowed.changed.is_empty() {
        [STALE_PAGE, STARTED_OVER, ORDER, SIZE].into_iter().for_each(|clause| tally[clause].cannot());
    }
    if !step.allowed.revoked.is_empty() {
        tally[STALE_WRITE].cannot();
    }
    if is_zap(step) {
        tally[YIELD].cannot();
    }
    if matches!(step.op, Op::GuestAccess { .. }) {
        [VIRTUAL, LOST_WRITE].into_iter().for_each(|clause| tally[clause].cannot());
    }
}

/// Count a translation that a missing flush would leave behind.
fn note_at_stake(step: &Step<'_>, stale: &Stale, tally: &mut [Tally]) {
    let clause = if revokes_write(step, stale) { STALE_WRITE } else { STALE_PAGE };
    let at_stake = clause == STALE_WRITE || !is_entitled(step, stale);
    tally[clause].check_if(at_stake);
    if clause == STALE_PAGE {
        tally[STARTED_OVER].check_if(at_stake && started_over::could_explain(step, stale));
    }
    if is_zap(step) {
        tally[YIELD].check_if(stale.since == step.at);
    }
    if stale.since == step.at {
        tally[SIZE].check_if(is_resized(step, stale));
        tally[LOST_WRITE].check_if(lost_write(step, stale));
    }
}

/// Count a translation that the op took away and flushed: too early a flush, and a table page freed before it, would have been wrong.
fn note_flushed(step: &Step<'_>, stale: &Stale, tally: &mut [Tally]) {
    if !step.capabilities.order {
        tally[ORDER].cannot();
        return;
    }
    tally[ORDER].check_if(owes_flush(step, stale));
    if step.events.contains(&gpa_model::TlbEvent::Freed) {
        tally[FREE].check();
    }
}

impl AliasFlush {
    /// The first access to a frame after its entitlement changed, through an alias that was used before. This needs only
    /// exits, so it can be asked of hardware.
    fn check_access(&mut self, step: &Step<'_>, tally: &mut Tally) -> Result<(), Objection> {
        for (reached, outdated) in self.reached.iter_mut().zip(&mut self.outdated) {
            *outdated = outdated.union(reached.intersect(step.allowed.changed));
            *reached = reached.minus(step.allowed.changed);
        }
        let Some((frame, alias)) = step.accessed_frame() else { return Ok(()) };
        let number = step.model.vm().stolen().alias_index(alias);
        let outdated = self.outdated[number].contains(frame);
        if let (Exit::Memory(pfn), true) = (step.exit, outdated)
            && let entitled = step.model.entitled(step.host, frame, alias)
            && !matches!(entitled, Entitled::Memory(right, _) if right == pfn)
        {
            tally.check();
            let why = format!("the access still reached {pfn}, as before the last change, but {}", instead(entitled));
            return Err(Objection { clause: STALE_ACCESS, blame: Some(Blame { frame, alias }), why });
        }
        if matches!(step.exit, Exit::Memory(_) | Exit::Mmio(_) | Exit::Emulated(_)) {
            if outdated {
                tally.check_if(step.capabilities.native);
            }
            self.outdated[number] = self.outdated[number].minus(FrameSet::one(frame));
        }
        if matches!(step.exit, Exit::Memory(_)) {
            self.reached[number] = self.reached[number].union(FrameSet::one(frame));
        }
        Ok(())
    }

    /// Nothing that a program of the guest reached through shadowed tables outlives what it was made of.
    fn check_virtual(&mut self, step: &Step<'_>, tally: &mut Tally) -> Result<(), Objection> {
        if !step.capabilities.shadows {
            if matches!(step.op, Op::GuestAccess { .. }) {
                tally.cannot();
            }
            return Ok(());
        }
        if self.virtual_tlb.is_at_stake(step) {
            tally.check();
        }
        self.virtual_tlb.flush(step);
        if let Some(entry) = self.virtual_tlb.unsound(step) {
            let frame = entry.frames.first().unwrap_or(0);
            let vm = step.model.vm();
            let indices: Vec<String> = entry.gva.indices(vm.paging().levels()).map(|index| index.to_string()).collect();
            let why = format!(
                "the TLB of v{} may still hold gva {} -> {}{}: no flush that worked reached it, and {}",
                entry.vcpu,
                indices.join("."),
                entry.pfn,
                if entry.writable { " writable" } else { "" },
                instead(step.model.entitled(step.host, frame, gpa_model::Alias::NONE)),
            );
            let blame = Some(Blame { frame, alias: gpa_model::Alias::NONE });
            return Err(Objection { clause: VIRTUAL, blame, why });
        }
        self.virtual_tlb.fill(step);
        Ok(())
    }
}

/// Whether the op is a zap, or part of one, after which others have their turn. What it took away may be anybody's page by the time
/// that it goes on, so flushes are not left for then.
fn is_zap(step: &Step<'_>) -> bool {
    matches!(step.op, Op::ZapBegin { .. } | Op::ZapEnd)
}

fn revokes_write(step: &Step<'_>, stale: &Stale) -> bool {
    step.allowed.revoked.contains(stale.frame.into())
        && !step.allowed.revoked_rights.intersect(stale.spte.rights()).intersect(Rights::W).is_none()
}

/// Whether the op took the right to write, and nothing else, because a table of the guest is shadowed from now on: the shadow is
/// right only while each write to the table is noticed (`account_shadowed()`, `mmu_sync_children()`).
fn lost_write(step: &Step<'_>, stale: &Stale) -> bool {
    let now = step.view.now(stale.alias.into(), stale.frame.into());
    let write_only = now.is_some_and(|now| now.pfn() == stale.spte.pfn() && !now.rights().contains(Rights::W));
    write_only
        && stale.spte.rights().contains(Rights::W)
        && matches!(step.op, Op::GuestAccess { .. } | Op::GuestFlush { .. })
}

/// Whether a larger leaf took the place of the table that the translation was in. A processor that caches the link to the table would
/// go on through it, and the table may be made into another.
fn is_resized(step: &Step<'_>, stale: &Stale) -> bool {
    let now = step.view.now(stale.alias.into(), stale.frame.into());
    now.is_some_and(|now| now.level() > stale.spte.level())
}

/// Whether a translation that the op took away must not be left in a TLB.
fn owes_flush(step: &Step<'_>, stale: &Stale) -> bool {
    revokes_write(step, stale)
        || is_zap(step)
        || !is_entitled(step, stale)
        || is_resized(step, stale)
        || lost_write(step, stale)
}

fn judge(step: &Step<'_>, stale: &Stale) -> Result<(), Objection> {
    let of_this_op = stale.since == step.at;
    let too_early = step.capabilities.order
        && of_this_op
        && step.flushes.iter().any(|flush| stale.is_covered(step.model.vm(), flush))
        && owes_flush(step, stale);
    if too_early {
        return object(step, stale, ORDER, "the tables still had it when it was flushed");
    }
    if revokes_write(step, stale) {
        return object(step, stale, STALE_WRITE, "a write through it would not be noticed");
    }
    if is_zap(step) && of_this_op {
        return object(step, stale, YIELD, "the lock was dropped with a TLB flush still pending");
    }
    if !is_entitled(step, stale) {
        let alias = step.model.vm().stolen().alias(stale.alias.into());
        let entitled = step.model.entitled(step.host, stale.frame.into(), alias);
        let sound = is_sound(stale.spte, entitled);
        let clause = if started_over::explains(step, stale) { STARTED_OVER } else { STALE_PAGE };
        let but = if sound { "its frames are not alike any more".into() } else { instead(entitled) };
        return object(step, stale, clause, &but);
    }
    if of_this_op && is_resized(step, stale) {
        return object(step, stale, SIZE, "a larger leaf has taken the place of its table");
    }
    if of_this_op && lost_write(step, stale) {
        return object(step, stale, LOST_WRITE, "the shadow of the guest's table would miss a write through it");
    }
    Ok(())
}

fn object(step: &Step<'_>, stale: &Stale, clause: usize, but: &str) -> Result<(), Objection> {
    let vm = step.model.vm();
    let (frame, alias) = (usize::from(stale.frame), vm.stolen().alias(stale.alias.into()));
    let vcpus: Vec<String> = stale.vcpus.iter().map(|vcpu| format!("v{vcpu}")).collect();
    let why = format!(
        "the TLB of {} may still hold {:?} -> {}: no flush that worked reached it, and {but}",
        vcpus.join(", "),
        vm.gpa(frame, stale.alias.into()),
        stale.spte
    );
    Err(Objection { clause, blame: Some(Blame { frame, alias }), why })
}

/// Whether the guest may still use a stale translation: one of an entry that could be in the tables.
fn is_entitled(step: &Step<'_>, stale: &Stale) -> bool {
    let (frame, alias) = (usize::from(stale.frame), step.model.vm().stolen().alias(stale.alias.into()));
    is_sound(stale.spte, step.model.entitled(step.host, frame, alias))
        && step.model.admits_leaf(frame, stale.spte.level())
}
