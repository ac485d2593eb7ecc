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
//! Limit: within one op, flushes are taken to follow the changes they belong to.

mod started_over;

use crate::laws::soundness::{instead, is_sound};
use crate::observe::{Blame, Clause, Objection, Oracle, Step, Tally};
use gpa_model::limits::ALIASES;
use gpa_model::{Entitled, Exit, Flush, FrameSet, Op, Rights, Span, Spte, VcpuSet, VmConfig};

const STALE_PAGE: usize = 0;
const STALE_WRITE: usize = 1;
const STALE_ACCESS: usize = 2;
const YIELD: usize = 3;
const FREE: usize = 4;
const STARTED_OVER: usize = 5;

/// The oracle `alias_flush`.
#[derive(Debug, Default)]
pub struct AliasFlush {
    stale: Vec<Stale>,
    /// Frames that were reached through each alias, so that a TLB may hold them.
    reached: [FrameSet; ALIASES],
    /// Those of them whose entitlement has changed since.
    outdated: [FrameSet; ALIASES],
}

#[derive(Clone, Copy, Debug)]
struct Stale {
    frame: u8,
    alias: u8,
    spte: Spte,
    vcpus: VcpuSet,
    /// Number of the op that took it out of the tables.
    since: usize,
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
                Clause::flushes("free"),
                Clause::flushes("started-over"),
            ]
        }
    }

    fn reset(&mut self) {
        self.stale.clear();
        self.reached = [FrameSet::EMPTY; ALIASES];
        self.outdated = [FrameSet::EMPTY; ALIASES];
    }

    fn check(&mut self, step: &Step<'_>, tally: &mut [Tally]) -> Result<(), Objection> {
        self.check_access(step, &mut tally[STALE_ACCESS])?;
        if !step.capabilities.tables || !step.capabilities.flushes {
            if !step.allowed.changed.is_empty() {
                tally[STALE_PAGE].cannot();
                tally[STARTED_OVER].cannot();
            }
            if !step.allowed.revoked.is_empty() {
                tally[STALE_WRITE].cannot();
            }
            if is_zap(step) {
                tally[YIELD].cannot();
            }
            return Ok(());
        }
        self.add_stale(step);
        if self.stale.is_empty() {
            return Ok(());
        }
        // Counted before the flushes: these are the translations that a missing flush would leave behind.
        for stale in &self.stale {
            let clause = if revokes_write(step, stale) { STALE_WRITE } else { STALE_PAGE };
            let at_stake = clause == STALE_WRITE || !is_entitled(step, stale);
            tally[clause].check_if(at_stake);
            if clause == STALE_PAGE {
                tally[STARTED_OVER].check_if(at_stake && started_over::could_explain(step, stale));
            }
            if is_zap(step) {
                tally[YIELD].check_if(stale.since == step.at);
            }
        }
        if step.freed_after.is_some() {
            tally[FREE].check_if(self.stale.iter().any(|stale| stale.since == step.at));
        }
        for (n, flush) in step.flushes.iter().enumerate() {
            self.check_free(step, n)?;
            self.apply(step.model.vm(), flush);
        }
        self.check_free(step, step.flushes.len())?;
        // What is explained hides nothing that is not.
        let mut explained = Ok(());
        for stale in &self.stale {
            match judge(step, stale) {
                Err(objection) if objection.clause == STARTED_OVER => explained = explained.and(Err(objection)),
                judged => judged?,
            }
        }
        explained
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

    /// If the first table page was freed after `flushes` flushes, a TLB holds nothing any more that the op took away.
    fn check_free(&self, step: &Step<'_>, flushes: usize) -> Result<(), Objection> {
        let left = self.stale.iter().find(|stale| step.freed_after == Some(flushes) && stale.since == step.at);
        left.map_or(Ok(()), |stale| object(step, stale, FREE, "the table page that it hung from may be another's now"))
    }

    /// Remember each translation that lost its page or a right in this op.
    fn add_stale(&mut self, step: &Step<'_>) {
        for alias in 0..step.view.aliases() {
            for frame in step.view.changed(alias).iter() {
                let Some(spte) = step.view.before(alias, frame) else { continue };
                let covered = step.view.now(alias, frame).is_some_and(|now| covers(now, spte));
                if !covered {
                    let vcpus = VcpuSet::first(step.model.vm().vcpus());
                    self.stale.push(Stale { frame: frame as u8, alias: alias as u8, spte, vcpus, since: step.at });
                }
            }
        }
        // What the tables show again is not stale any more.
        self.stale.retain(|stale| {
            step.view.now(stale.alias.into(), stale.frame.into()).is_none_or(|now| !covers(now, stale.spte))
        });
    }

    fn apply(&mut self, vm: &VmConfig, flush: &Flush) {
        match *flush {
            Flush::All { vcpus } => {
                for stale in &mut self.stale {
                    stale.vcpus = stale.vcpus.minus(vcpus);
                }
                self.stale.retain(|stale| !stale.vcpus.is_empty());
            }
            Flush::Range { gpa, pages, ok: true } => {
                let flushed = Span { start: gpa, pages };
                let leaf =
                    |stale: &Stale| Span::of_leaf(vm.gpa(stale.frame.into(), stale.alias.into()), stale.spte.level());
                self.stale.retain(|stale| !flushed.covers(leaf(stale)));
            }
            Flush::Range { ok: false, .. } => {}
        }
    }
}

/// Whether `now` promises all that `old` did, and a flush of all that `now` translates drops `old` too.
fn covers(now: Spte, old: Spte) -> bool {
    now.pfn() == old.pfn() && now.rights().contains(old.rights()) && now.level() >= old.level()
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

fn judge(step: &Step<'_>, stale: &Stale) -> Result<(), Objection> {
    if revokes_write(step, stale) {
        return object(step, stale, STALE_WRITE, "a write through it would not be noticed");
    }
    if is_zap(step) && stale.since == step.at {
        return object(step, stale, YIELD, "who has his turn now finds nothing mapped that he would have to flush");
    }
    if is_entitled(step, stale) {
        return Ok(());
    }
    let alias = step.model.vm().stolen().alias(stale.alias.into());
    let entitled = step.model.entitled(step.host, stale.frame.into(), alias);
    let sound = is_sound(stale.spte, entitled);
    let clause = if started_over::explains(step, stale) { STARTED_OVER } else { STALE_PAGE };
    object(step, stale, clause, &if sound { "its frames are not alike any more".into() } else { instead(entitled) })
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
