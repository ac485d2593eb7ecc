//! `progress`: a guest access gets somewhere. It may be retried only while something was in flux, and one that
//! reached memory, or waited for a page that is there now, has left a translation behind, so that the same access does not fault
//! for ever.

use crate::observe::{Blame, Clause, Objection, Oracle, Step, Tally};
use gpa_model::{Alias, Exit};

const RETRY: usize = 0;
const MAPPED: usize = 1;

/// The oracle `progress`.
#[derive(Debug)]
pub struct Progress;

impl Oracle for Progress {
    fn name(&self) -> &'static str {
        "progress"
    }

    fn clauses(&self) -> &'static [Clause] {
        const { &[Clause::exits("retry"), Clause::tables("mapped")] }
    }

    fn check(&mut self, step: &Step<'_>, tally: &mut [Tally]) -> Result<(), Objection> {
        if let Exit::PageReady(gpa) = step.exit {
            let named = step.model.vm().locate(gpa).filter(|_| step.allowed.ready_is_mapped);
            return named.map_or(Ok(()), |named| check_mapped(step, named, &mut tally[MAPPED]));
        }
        let Some((frame, alias)) = step.accessed_frame() else { return Ok(()) };
        let blame = Some(Blame { frame, alias });
        match step.exit {
            Exit::Unsupported => tally[RETRY].cannot(),
            Exit::Retry if !step.allowed.retry => {
                tally[RETRY].check();
                let why = "the access is retried although nothing is in flux: the guest would fault for ever".into();
                return Err(Objection { clause: RETRY, blame, why });
            }
            // An access that an emulator answered says nothing about the MMU.
            _ => tally[RETRY].check_if(step.capabilities.native),
        }
        let prefaulted = step.exit == Exit::Done;
        if !matches!(step.exit, Exit::Memory(_)) && !prefaulted {
            return Ok(());
        }
        check_mapped(step, (frame, alias), &mut tally[MAPPED])
    }
}

/// The address leads somewhere.
fn check_mapped(step: &Step<'_>, (frame, alias): (usize, Alias), tally: &mut Tally) -> Result<(), Objection> {
    if !step.capabilities.tables {
        tally.cannot();
        return Ok(());
    }
    tally.check();
    let number = step.model.vm().stolen().alias_index(alias);
    if step.view.now(number, frame).is_some() {
        return Ok(());
    }
    let why = "the address was reached, or asked for, but no translation is left: the next access faults again".into();
    Err(Objection { clause: MAPPED, blame: Some(Blame { frame, alias }), why })
}
