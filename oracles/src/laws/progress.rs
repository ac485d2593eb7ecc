//! `progress`: a guest access gets somewhere. It may be retried only while what it needs is in flux, and one that reached memory,
//! or waited for a page that is there now, has left a translation behind that allows it, so that the same access does not fault
//! for ever. A request of user space that only a signal ends has gone round and round in the kernel.

use crate::observe::{Blame, Clause, Objection, Oracle, Step, Tally};
use gpa_model::{Access, Alias, Exit, Rights};

const RETRY: usize = 0;
const MAPPED: usize = 1;
const RIGHTS: usize = 2;
const INTERRUPTED: usize = 3;

/// The oracle `progress`.
#[derive(Debug)]
pub struct Progress;

impl Oracle for Progress {
    fn name(&self) -> &'static str {
        "progress"
    }

    fn clauses(&self) -> &'static [Clause] {
        const { &[Clause::exits("retry"), Clause::tables("mapped"), Clause::tables("rights"), Clause::exits("interrupted")] }
    }

    fn check(&mut self, step: &Step<'_>, tally: &mut [Tally]) -> Result<(), Objection> {
        if let Exit::PageReady(gpa) = step.exit {
            let mapped = step.allowed.page_ready.contains(&(gpa, true));
            let named = step.model.vm().locate(gpa).filter(|_| mapped);
            return named.map_or(Ok(()), |named| check_mapped(step, named, Access::Read, tally));
        }
        let Some((frame, alias)) = step.accessed_frame() else { return Ok(()) };
        check_retry(step, Blame { frame, alias }, tally)?;
        if !matches!(step.exit, Exit::Memory(_) | Exit::Done) {
            return Ok(());
        }
        check_mapped(step, (frame, alias), step.access.unwrap_or(Access::Read), tally)
    }
}

/// An access is retried, and a request interrupted, only while what it needs is in flux. Where that is so nothing is at stake.
fn check_retry(step: &Step<'_>, blame: Blame, tally: &mut [Tally]) -> Result<(), Objection> {
    let is_range_of_all_names = !step.capabilities.own_aliases && step.model.is_anything_in_flux(step.host);
    let may_retry = step.allowed.retry || is_range_of_all_names;
    let (clause, why) = match step.exit {
        Exit::Unsupported => {
            tally[RETRY].cannot();
            return Ok(());
        }
        Exit::Retry => {
            (RETRY, "the access is retried although nothing that it needs is in flux: it would fault for ever")
        }
        Exit::Interrupted => {
            (INTERRUPTED, "only a signal ended the request, although nothing that it needs is in flux")
        }
        // An access that an emulator answered says nothing about the MMU.
        _ => {
            let at_stake = step.capabilities.native && !may_retry && step.exit != Exit::Pending;
            tally[RETRY].check_if(at_stake);
            if step.allowed.interruptible {
                tally[INTERRUPTED].check_if(at_stake);
            }
            return Ok(());
        }
    };
    if may_retry {
        tally[clause].skip();
        return Ok(());
    }
    tally[clause].check();
    Err(Objection { clause, blame: Some(blame), why: why.into() })
}

/// The address leads somewhere, with the right that `access` needs.
fn check_mapped(
    step: &Step<'_>,
    (frame, alias): (usize, Alias),
    access: Access,
    tally: &mut [Tally],
) -> Result<(), Objection> {
    if !step.capabilities.tables {
        [MAPPED, RIGHTS].into_iter().for_each(|clause| tally[clause].cannot());
        return Ok(());
    }
    let blame = Some(Blame { frame, alias });
    let number = step.model.vm().stolen().alias_index(alias);
    tally[MAPPED].check();
    let Some(spte) = step.view.now(number, frame) else {
        let why =
            "the address was reached, or asked for, but no translation is left: the next access faults again".into();
        return Err(Objection { clause: MAPPED, blame, why });
    };
    let needed = Rights::needed(access);
    tally[RIGHTS].check_if(needed != Rights::R);
    if spte.rights().contains(needed) {
        return Ok(());
    }
    let why = format!("the {} ended well, but {spte} does not allow it: the next one faults again", access.name());
    Err(Objection { clause: RIGHTS, blame, why })
}
