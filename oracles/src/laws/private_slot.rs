//! `private_slot`: no GPA with a stolen bit is ever mapped over a private slot or over a hole, by fault or by prefetch;
//! an access there ends as it would in a hole, and so does one by a guest of the guest; the base name of a private slot works as
//! if there were no aliases.

use crate::observe::{Blame, Clause, Objection, Oracle, Step, Tally};
use gpa_model::{Alias, Entitled, Exit, FrameSet, SlotKind};

const ALIAS_UNMAPPED: usize = 0;
const ALIAS_EXIT: usize = 1;
const BASE_EXIT: usize = 2;
const NESTED_EXIT: usize = 3;

/// The oracle `private_slot`.
#[derive(Debug)]
pub struct PrivateSlot;

impl Oracle for PrivateSlot {
    fn name(&self) -> &'static str {
        "private_slot"
    }

    fn clauses(&self) -> &'static [Clause] {
        const {
            &[
                Clause::tables("alias-unmapped"),
                Clause::exits("alias-exit"),
                Clause::exits("base-exit"),
                Clause::shadows("nested-exit"),
            ]
        }
    }

    fn check(&mut self, step: &Step<'_>, tally: &mut [Tally]) -> Result<(), Objection> {
        check_exit(step, tally)?;
        check_tables(step, &mut tally[ALIAS_UNMAPPED])
    }
}

/// What an access to an alias of nothing, or to a private slot by either name, came to.
fn check_exit(step: &Step<'_>, tally: &mut [Tally]) -> Result<(), Objection> {
    let hidden = step.hidden_frame();
    let Some((frame, alias)) = step.accessed_frame().or(hidden.map(|frame| (frame, Alias::NONE))) else {
        return Ok(());
    };
    let clause = match step.model.slot_kind(frame) {
        _ if hidden.is_some() => NESTED_EXIT,
        SlotKind::Internal | SlotKind::Hole if !alias.is_none() => ALIAS_EXIT,
        SlotKind::Internal => BASE_EXIT,
        _ => return Ok(()),
    };
    match step.exit {
        Exit::Unsupported => tally[clause].cannot(),
        // Whether an access may be retried is for `progress` to judge.
        Exit::Retry | Exit::Interrupted | Exit::Pending => tally[clause].skip(),
        exit => {
            if clause == ALIAS_EXIT && !step.capabilities.own_aliases {
                tally[clause].cannot();
            } else {
                tally[clause].check_if(step.capabilities.native);
            }
            if !step.admits() {
                let entitled = match hidden {
                    Some(_) => Entitled::Hole,
                    None => step.model.entitled(step.host, frame, alias),
                };
                let why = format!("the access ended in {exit:?}, but {}", crate::laws::soundness::instead(entitled));
                return Err(Objection { clause, blame: Some(Blame { frame, alias }), why });
            }
        }
    }
    Ok(())
}

/// What is mapped under an alias.
fn check_tables(step: &Step<'_>, tally: &mut Tally) -> Result<(), Objection> {
    let vm = step.model.vm();
    if vm.stolen().alias_count() == 1 {
        return Ok(());
    }
    if !step.capabilities.tables {
        if step.accessed.is_some() {
            tally.cannot();
        }
        return Ok(());
    }
    let forbidden = step.model.alias_holes();
    for alias in 1..step.view.aliases() {
        let present = step.view.present(alias);
        if present.is_empty() {
            continue;
        }
        // Exercised when something near a forbidden frame is mapped under an alias, as prefetch would.
        if near(present).intersect(forbidden).is_empty() {
            tally.skip();
        } else {
            tally.check();
        }
        if let Some(frame) = present.intersect(forbidden).first() {
            let spte = step.view.now(alias, frame);
            let kind = step.model.slot_kind(frame).name();
            let why = format!(
                "alias {alias} of gfn {} is mapped ({}) over a {kind} frame, which only has a base name",
                vm.gfn(frame),
                spte.map_or_else(String::new, |spte| spte.to_string())
            );
            let blame = Some(Blame { frame, alias: vm.stolen().alias(alias) });
            return Err(Objection { clause: ALIAS_UNMAPPED, blame, why });
        }
    }
    Ok(())
}

/// The frames within seven of any in the set.
fn near(set: FrameSet) -> FrameSet {
    let mut bits = set.bits();
    for shift in [1, 2, 4] {
        bits |= bits << shift | bits >> shift;
    }
    FrameSet::from_bits(bits)
}
