//! `dirty_log`: a write through any alias is in the log of its gfn. What must be there ⊆ what is reported ⊆ what may be
//! there; and when the log forgets a page, no alias of it stays writable.

use crate::observe::{Blame, Clause, Objection, Oracle, Step, Tally};
use gpa_model::{Exit, FrameSet, Rights, VmConfig};

const WRITE_PROTECTED: usize = 0;
const MISSING: usize = 1;
const EXCESS: usize = 2;

/// The oracle `dirty_log`.
#[derive(Debug)]
pub struct DirtyLog;

impl Oracle for DirtyLog {
    fn name(&self) -> &'static str {
        "dirty_log"
    }

    fn clauses(&self) -> &'static [Clause] {
        const { &[Clause::tables("write-protected"), Clause::exits("missing"), Clause::exits("excess")] }
    }

    fn check(&mut self, step: &Step<'_>, tally: &mut [Tally]) -> Result<(), Objection> {
        check_write_protected(step, &mut tally[WRITE_PROTECTED])?;
        check_report(step, tally)
    }
}

fn check_write_protected(step: &Step<'_>, tally: &mut Tally) -> Result<(), Objection> {
    let revoked = step.allowed.revoked;
    if revoked.is_empty() || !step.allowed.revoked_rights.contains(Rights::W) {
        return Ok(());
    }
    if !step.capabilities.tables {
        tally.cannot();
        return Ok(());
    }
    let vm = step.model.vm();
    let mut at_stake = false;
    for number in 0..step.view.aliases() {
        at_stake |= revoked
            .iter()
            .any(|frame| step.view.before(number, frame).is_some_and(|spte| spte.rights().contains(Rights::W)));
        if let Some(frame) = step.view.writable(number).intersect(revoked).first() {
            tally.check();
            let why = format!(
                "{:?} is still mapped writable ({}) although this op write-protects gfn {} under every alias",
                vm.gpa(frame, number),
                step.view.now(number, frame).map_or_else(String::new, |spte| spte.to_string()),
                vm.gfn(frame)
            );
            let blame = Some(Blame { frame, alias: vm.stolen().alias(number) });
            return Err(Objection { clause: WRITE_PROTECTED, blame, why });
        }
    }
    tally.check_if(at_stake);
    Ok(())
}

fn check_report(step: &Step<'_>, tally: &mut [Tally]) -> Result<(), Objection> {
    let Some((must, may)) = step.allowed.dirty else { return Ok(()) };
    let vm = step.model.vm();
    let Exit::Dirty(reported) = step.exit else {
        tally[MISSING].cannot();
        tally[EXCESS].cannot();
        return Ok(());
    };
    tally[MISSING].check_if(!must.is_empty());
    tally[EXCESS].check();
    let bad = |clause, frames: FrameSet, what: &str| match frames.first() {
        None => Ok(()),
        Some(frame) => Err(Objection { clause, blame: blame(vm, frame), why: format!("gfn {} {what}", vm.gfn(frame)) }),
    };
    bad(
        MISSING,
        must.minus(reported),
        "was written, or could be written unseen, through some alias, but is not in the log",
    )?;
    bad(EXCESS, reported.minus(may), "is in the log, but nothing touched it since the log was cleared")
}

/// The log knows gfns: what it gets wrong it gets wrong for the base name.
#[expect(clippy::unnecessary_wraps, reason = "the form an Objection wants")]
fn blame(vm: &VmConfig, frame: usize) -> Option<Blame> {
    Some(Blame { frame, alias: vm.stolen().alias(0) })
}
