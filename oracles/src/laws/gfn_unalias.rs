//! `gfn_unalias`: every alias of a frame is that frame. The guest finds through each what the model says; every present
//! SPTE of every alias is sound; what is kept by gfn carries no stolen bit.

mod ageing;

use super::soundness::{instead, is_sound};
use crate::observe::{Blame, Clause, End, Objection, Oracle, Step, Tally};
use ageing::Ageing;
use gpa_model::{Entitled, Exit, FrameSet, Op, SlotKind};

const EXIT: usize = 0;
const SPTE: usize = 1;
const TRANSLATE: usize = 2;
const GUEST_FAULT: usize = 3;
const AGE: usize = 4;
const KEYED: usize = 5;
const ZAPPED: usize = 6;
const WARN: usize = 7;
const ATTRIBUTE: usize = 8;
const IDLE: usize = 9;

/// The oracle `gfn_unalias`.
#[derive(Debug, Default)]
pub struct GfnUnalias {
    ageing: Ageing,
    /// Whether anything was mapped of what the zap that has begun is to take away.
    zap_at_stake: bool,
    /// Frames that were holes when they were accessed last, through whichever alias.
    holes_seen: FrameSet,
}

impl Oracle for GfnUnalias {
    fn name(&self) -> &'static str {
        "gfn_unalias"
    }

    fn clauses(&self) -> &'static [Clause] {
        const {
            &[
                Clause::exits("exit"),
                Clause::tables("spte"),
                Clause::exits("translate"),
                Clause::exits("guest-fault"),
                Clause::tables("age"),
                Clause::keys("keyed"),
                Clause::tables("zapped"),
                Clause::shadows("warn"),
                Clause::exits("attribute"),
                Clause::tables("idle"),
            ]
        }
    }

    fn reset(&mut self) {
        self.ageing = Ageing::default();
        self.zap_at_stake = false;
        self.holes_seen = FrameSet::EMPTY;
    }

    fn check(&mut self, step: &Step<'_>, tally: &mut [Tally]) -> Result<(), Objection> {
        self.check_attribute(step, &mut tally[ATTRIBUTE])?;
        check_exit(step, tally)?;
        check_warning(step, &mut tally[WARN])?;
        if step.capabilities.tables {
            check_sptes(step, &mut tally[SPTE])?;
            self.check_zapped(step, &mut tally[ZAPPED])?;
        } else if step.accessed.is_some() {
            tally[SPTE].cannot();
        }
        self.ageing.check(step, tally)
    }

    fn finish(&mut self, end: &End<'_>, tally: &mut [Tally]) -> Result<(), Objection> {
        if !end.capabilities.keys {
            tally[KEYED].cannot();
            return Ok(());
        }
        if end.keys.is_empty() || end.model.vm().stolen().gfn_mask() == 0 {
            tally[KEYED].skip();
            return Ok(());
        }
        tally[KEYED].check();
        match end.keys.iter().find(|key| end.model.vm().stolen().taints(key.raw())) {
            None => Ok(()),
            Some(key) => {
                let why = format!(
                    "the {} is keyed by {:#x}, which carries a stolen bit: no gfn does",
                    key.table(),
                    key.raw()
                );
                Err(Objection { clause: KEYED, blame: None, why })
            }
        }
    }
}

/// The answer to an access or a walk. Retries are `progress`'s to judge, private slots and alias holes `private_slot`'s.
fn check_exit(step: &Step<'_>, tally: &mut [Tally]) -> Result<(), Objection> {
    let clause = match (step.op, step.exit) {
        (Op::Translate { .. } | Op::GuestWalk { .. } | Op::GuestAccess { .. }, Exit::GuestFault(_)) => GUEST_FAULT,
        (Op::Translate { .. } | Op::GuestWalk { .. }, _) => TRANSLATE,
        _ => EXIT,
    };
    let accessed = step.accessed_frame();
    if step.hidden_frame().is_some() {
        return Ok(());
    }
    if clause == EXIT
        && let Some((frame, alias)) = accessed
    {
        let kind = step.model.slot_kind(frame);
        if kind == SlotKind::Internal || kind == SlotKind::Hole && !alias.is_none() {
            return Ok(());
        }
    }
    match step.exit {
        Exit::Unsupported => tally[clause].cannot(),
        Exit::Retry | Exit::Interrupted if accessed.is_some() => tally[clause].skip(),
        Exit::Pending if step.allowed.pending => tally[clause].skip(),
        exit => {
            tally[clause].check_if(step.capabilities.native && is_telling(step));
            if !step.admits() {
                let blame = accessed.map(|(frame, alias)| Blame { frame, alias });
                return Err(Objection { clause, blame, why: wrong_exit(step, exit) });
            }
        }
    }
    Ok(())
}

/// Whether the answer could have been wrong: an op that can only be carried out tells nothing when it was, and what the dirty log and
/// ageing report is judged by their own clauses.
fn is_telling(step: &Step<'_>) -> bool {
    match step.exit {
        Exit::Done => step.accessed.is_some(),
        Exit::Dirty(_) | Exit::Young(_) => false,
        // A retry is as right as any other answer.
        Exit::Retry => !step.allowed.retry,
        _ => true,
    }
}

fn wrong_exit(step: &Step<'_>, exit: Exit) -> String {
    let entitled = step.accessed_frame().map(|(frame, alias)| step.model.entitled(step.host, frame, alias));
    let walk = crate::observe::show::show_walk(step.model.vm(), step.allowed);
    let right = match entitled {
        _ if exit == Exit::Refused && step.allowed.refused => {
            "the design of this target declares no rule by which an alias is refused".into()
        }
        _ if exit == Exit::RingFull => "there is room in the dirty ring of this vCPU".into(),
        _ if exit == Exit::Halted => "this vCPU waits for no such page".into(),
        _ if exit == Exit::PageNotPresent && step.allowed.halted => {
            "the guest was told so before, by this name of the frame or another: the vCPU halts".into()
        }
        _ if exit == Exit::PageNotPresent => "whoever needs this page does not have to wait".into(),
        _ if matches!(exit, Exit::PageReady(_)) => "this vCPU waits for no such page that was read in".into(),
        _ if !step.allowed.page_ready.is_empty() => "a page that this vCPU waits for was read in".into(),
        None if !walk.is_empty() => format!("the guest's tables lead elsewhere: {}", walk.join(" or ")),
        Some(Entitled::Hole) => "there is no memory here: only an exit to user space is right".into(),
        Some(Entitled::InFlux) => "the memslot or page is being taken away: only a retry is right".into(),
        Some(Entitled::OtherKind) => "the gfn has memory of the other kind: only a memory fault is right".into(),
        Some(Entitled::NoPage) => "nobody can have the page: only an error is right".into(),
        Some(Entitled::Memory(pfn, rights)) => format!("every alias of this gfn is {pfn} {rights}"),
        None => "that is no answer to this op".into(),
    };
    format!("the op ended in {exit:?}, but {right}")
}

/// Whatever a guest puts into its tables and wherever it goes by them, that is no mistake of the hypervisor's, which therefore
/// does not warn.
fn check_warning(step: &Step<'_>, tally: &mut Tally) -> Result<(), Objection> {
    if !matches!(step.op, Op::GuestAccess { .. }) {
        return Ok(());
    }
    if !step.capabilities.shadows {
        tally.cannot();
        return Ok(());
    }
    tally.check_if(step.model.vm().stolen().gfn_mask() != 0 && step.model.can_shadow());
    step.warning.map_or(Ok(()), |of| {
        Err(Objection { clause: WARN, blame: None, why: format!("the guest made the hypervisor warn of {of}") })
    })
}

/// Everything mapped that is new, or whose entitlement changed, is something the guest is entitled to.
fn check_sptes(step: &Step<'_>, tally: &mut Tally) -> Result<(), Objection> {
    let vm = step.model.vm();
    let holes = step.model.alias_holes();
    for number in 0..step.view.aliases() {
        let touched = step.view.changed(number).union(step.allowed.changed);
        let mut judged = step.view.present(number).intersect(touched);
        if number != 0 {
            judged = judged.minus(holes);
        }
        for frame in judged.iter() {
            let Some(spte) = step.view.now(number, frame) else { continue };
            let alias = vm.stolen().alias(number);
            tally.check();
            let entitled = step.model.entitled(step.host, frame, alias);
            if !is_sound(spte, entitled) {
                let why = format!("{:?} is mapped to {spte}, but {}", vm.gpa(frame, number), instead(entitled));
                return Err(Objection { clause: SPTE, blame: Some(Blame { frame, alias }), why });
            }
        }
    }
    Ok(())
}

impl GfnUnalias {
    /// What was to go is gone, under every alias, whatever happened since the zap began.
    fn check_zapped(&mut self, step: &Step<'_>, tally: &mut Tally) -> Result<(), Objection> {
        let vm = step.model.vm();
        let mut aliases = 0..step.view.aliases();
        if let Op::ZapBegin { gfn, pages, .. } = *step.op {
            let frames = vm.frames(gfn, pages.into());
            let seen = |alias| step.view.present(alias).union(step.view.changed(alias));
            self.zap_at_stake = aliases.any(|alias| !seen(alias).intersect(frames).is_empty());
        } else if matches!(step.op, Op::ZapEnd) {
            tally.check_if(self.zap_at_stake);
            let left = |alias| step.view.present(alias).intersect(step.allowed.zapped).first();
            if let Some((number, frame)) = aliases.find_map(|alias| Some((alias, left(alias)?))) {
                let why = format!("{:?} is still mapped, though the zap of its gfn has ended", vm.gpa(frame, number));
                let blame = Some(Blame { frame, alias: vm.stolen().alias(number) });
                return Err(Objection { clause: ZAPPED, blame, why });
            }
        }
        Ok(())
    }

    /// Where memory comes from hangs on the attribute of its gfn, and not on a hole that was seen there before (`handle_mmio_page_fault()`).
    fn check_attribute(&mut self, step: &Step<'_>, tally: &mut Tally) -> Result<(), Objection> {
        let Some((frame, alias)) = step.accessed_frame() else { return Ok(()) };
        let one = FrameSet::one(frame);
        let private = step.allowed.memory.is_some() && step.model.memory_attributes().private().contains(frame);
        if private && self.holes_seen.contains(frame) {
            tally.check_if(step.capabilities.native);
            if step.exit == Exit::MemoryFault {
                let why = "the frame is private, but what was a hole before is still taken for shared".into();
                return Err(Objection { clause: ATTRIBUTE, blame: Some(Blame { frame, alias }), why });
            }
        }
        match step.exit {
            Exit::Mmio(_) if step.model.slot_kind(frame) == SlotKind::Hole => {
                self.holes_seen = self.holes_seen.union(one);
            }
            Exit::Memory(_) => self.holes_seen = self.holes_seen.minus(one),
            _ => {}
        }
        Ok(())
    }
}
