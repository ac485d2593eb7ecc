//! Ageing: a page that was accessed under any alias is young, and one that was aged is idle until it is accessed again.

use super::{AGE, IDLE};
use crate::observe::{Blame, Objection, Step, Tally};
use gpa_model::limits::ALIASES;
use gpa_model::{Exit, Flush, FrameSet, HostPage, HostPageRange, Op, VmConfig};

/// What is known of accessed bits.
#[derive(Debug, Default)]
pub(super) struct Ageing {
    /// Frames accessed through each alias since they were aged, whose translation is still the one that was used.
    accessed: [FrameSet; ALIASES],
    /// Host pages that were aged, with no access to any page since: one bit for each block.
    idle: u64,
    /// Those of them that some name was mapped to.
    mapped: u64,
}

/// Whether the op may use translations, or map what a fault needs.
fn faults(step: &Step<'_>) -> bool {
    step.accessed.is_some() || matches!(step.op, Op::GuestAccess { .. } | Op::PageReady { .. })
}

fn blocks(vm: &VmConfig, range: &HostPageRange) -> u64 {
    let (start, end) = (vm.hva_index(range.start), vm.hva_index(HostPage::new(range.end())));
    FrameSet::range(start, end - start).bits()
}

impl Ageing {
    pub(super) fn check(&mut self, step: &Step<'_>, tally: &mut [Tally]) -> Result<(), Objection> {
        self.check_idle(step, &mut tally[IDLE])?;
        self.check_young(step, &mut tally[AGE])
    }

    /// Ageing cleared the accessed bit of every name, so ageing again without an access between finds the page idle.
    fn check_idle(&mut self, step: &Step<'_>, tally: &mut Tally) -> Result<(), Objection> {
        if faults(step) {
            (self.idle, self.mapped) = (0, 0);
        }
        let (Op::Age { range }, Exit::Young(young)) = (step.op, step.exit) else { return Ok(()) };
        if !step.capabilities.tables {
            tally.cannot();
            return Ok(());
        }
        let (vm, blocks) = (step.model.vm(), blocks(step.model.vm(), range));
        let frames = step.model.frames_of(*range);
        let aged = blocks & !self.idle == 0;
        let mapped = (0..step.view.aliases()).any(|alias| {
            let present = step.view.present(alias).union(step.view.changed(alias));
            !present.intersect(frames).is_empty()
        });
        self.idle |= blocks;
        if !aged {
            // Where the processor sets no accessed bit, ageing takes the rights away, and nothing shows what is idle.
            self.mapped |= if mapped { blocks } else { 0 };
            return Ok(());
        }
        tally.check_if(self.mapped & blocks != 0);
        if !young {
            return Ok(());
        }
        let why =
            "the pages were aged before, and nothing was accessed since, but some name of them is still young".into();
        let blame = frames.first().map(|frame| Blame { frame, alias: vm.stolen().alias(0) });
        Err(Objection { clause: IDLE, blame, why })
    }

    /// A page that was accessed under any alias is young: M88-age-base-only of the reference.
    fn check_young(&mut self, step: &Step<'_>, tally: &mut Tally) -> Result<(), Objection> {
        let vm = step.model.vm();
        // Where the processor sets no accessed bit, ageing itself takes the rights away.
        if step.capabilities.tables && !matches!(step.op, Op::Age { .. }) {
            for number in 0..step.view.aliases() {
                // A translation that was replaced took its accessed bit along.
                self.accessed[number] = self.accessed[number].minus(step.view.changed(number));
            }
            // A fault that flushed everything may have recycled any table, and prefetched what it had mapped just as it was: without
            // the accessed bit.
            if faults(step) && step.flushes.iter().any(|flush| matches!(flush, Flush::All { .. })) {
                self.accessed = [FrameSet::EMPTY; ALIASES];
            }
        }
        if let (Some((frame, alias)), Exit::Memory(_)) = (step.accessed_frame(), step.exit)
            && step.model.is_aged(alias)
        {
            let number = vm.stolen().alias_index(alias);
            self.accessed[number] = self.accessed[number].union(FrameSet::one(frame));
        }
        let Op::Age { range } = step.op else { return Ok(()) };
        let Exit::Young(young) = step.exit else {
            tally.cannot();
            return Ok(());
        };
        if !step.capabilities.tables {
            tally.cannot();
            return Ok(());
        }
        let frames = step.model.frames_of(*range);
        let mut used = self.accessed.iter().enumerate();
        let used = used.find_map(|(number, set)| set.intersect(frames).first().map(|frame| (number, frame)));
        for (number, set) in self.accessed.iter_mut().enumerate().take(step.view.aliases()) {
            // A leaf has one accessed bit for all that it translates.
            *set = set.minus(frames).minus(step.view.changed(number));
            if !set.is_empty() {
                *set = frames.iter().fold(*set, |set, frame| set.minus(step.view.leaf_before(vm, number, frame)));
            }
        }
        let Some((number, frame)) = used else {
            tally.skip();
            return Ok(());
        };
        tally.check();
        if young {
            return Ok(());
        }
        let why =
            format!("{:?} was accessed and is still mapped, but aging its page found it idle", vm.gpa(frame, number));
        let blame = Some(Blame { frame, alias: vm.stolen().alias(number) });
        Err(Objection { clause: AGE, blame, why })
    }
}
