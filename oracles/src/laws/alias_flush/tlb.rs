//! What a worst-case TLB holds beside what the tables show: translations that were in the tables at some point, are not any more,
//! and were not flushed since.

use super::Judged;
use crate::observe::Step;
use gpa_model::limits::{ALIASES, FRAMES};
use gpa_model::{Flush, FrameSet, Span, Spte, TlbEvent, VcpuSet, VmConfig};

/// A translation that a TLB may hold though the tables do not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stale {
    pub(super) frame: u8,
    pub(super) alias: u8,
    pub(super) spte: Spte,
    /// The vCPUs whose TLB may hold it.
    pub(super) vcpus: VcpuSet,
    /// Number of the op that took it out of the tables.
    pub(super) since: usize,
}

impl Stale {
    /// What the leaf translated that it was part of.
    fn leaf(&self, vm: &VmConfig) -> Span {
        Span::of_leaf(vm.gpa(self.frame.into(), self.alias.into()), self.spte.level())
    }

    /// Whether a flush drops it on every vCPU.
    pub(super) fn is_covered(&self, vm: &VmConfig, flush: &Flush) -> bool {
        match *flush {
            Flush::All { vcpus } => VcpuSet::first(vm.vcpus()).minus(vcpus).is_empty(),
            Flush::Range { gpa, pages, ok } => ok && Span { start: gpa, pages }.covers(self.leaf(vm)),
        }
    }
}

/// The tables at a point within an op.
type Tables = [[Option<Spte>; FRAMES]; ALIASES];

/// The worst-case TLB of all vCPUs.
#[derive(Debug)]
pub(super) struct Tlb {
    pub(super) stale: Vec<Stale>,
    /// The tables as they were sampled last within the current op. Means something from the first sample on.
    point: Box<Tables>,
    sampled: bool,
    /// The frames that are mapped at that point.
    mapped: [FrameSet; ALIASES],
    /// The frames that any sample of the current op showed to differ from the one before.
    touched: [FrameSet; ALIASES],
}

impl Default for Tlb {
    fn default() -> Self {
        let none = [FrameSet::EMPTY; ALIASES];
        let point = Box::new([[None; FRAMES]; ALIASES]);
        Self { stale: Vec::new(), point, sampled: false, mapped: none, touched: none }
    }
}

impl Tlb {
    pub(super) fn reset(&mut self) {
        self.stale.clear();
    }

    /// Go through the log of an op. `judge` is told of each translation that is lost, of each that a flush drops, and of each that is
    /// left when a table page is freed.
    pub(super) fn replay<E>(
        &mut self,
        step: &Step<'_>,
        judge: &mut dyn FnMut(Judged, &Stale) -> Result<(), E>,
    ) -> Result<(), E> {
        self.sampled = false;
        if !step.capabilities.order {
            // Flushes are taken to follow the changes.
            self.end(step, judge)?;
        }
        for event in step.events {
            match event {
                TlbEvent::Tables(range) => self.sample(step, &step.samples[range.clone()], judge)?,
                TlbEvent::Flush(flush) => self.flush(step, flush, judge)?,
                TlbEvent::Freed if step.capabilities.order => {
                    for stale in self.stale.iter().filter(|stale| stale.since == step.at) {
                        judge(Judged::Freed, stale)?;
                    }
                }
                TlbEvent::Freed => {}
            }
        }
        if step.capabilities.order {
            self.end(step, judge)?;
        }
        Ok(())
    }

    /// The tables as they are after the op.
    fn end<E>(&mut self, step: &Step<'_>, judge: &mut dyn FnMut(Judged, &Stale) -> Result<(), E>) -> Result<(), E> {
        for alias in 0..step.view.aliases() {
            let changed = step.view.changed(alias);
            // At a sample an entry may have been another than before and after the op.
            let frames = if self.sampled { changed.union(self.touched[alias]) } else { changed };
            for frame in frames.iter() {
                let old = if self.sampled { self.point[alias][frame] } else { step.view.before(alias, frame) };
                self.change(step, (alias, frame), old, step.view.now(alias, frame), judge)?;
            }
        }
        self.stale.retain(|stale| !is_shown(stale, |alias, frame| step.view.now(alias, frame)));
        Ok(())
    }

    fn sample<E>(
        &mut self,
        step: &Step<'_>,
        samples: &[gpa_model::Sample],
        judge: &mut dyn FnMut(Judged, &Stale) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.sampled {
            self.start_sampling(step);
        }
        let mut mapped = [FrameSet::EMPTY; ALIASES];
        for sample in samples {
            let (alias, frame) = (usize::from(sample.alias), usize::from(sample.frame));
            mapped[alias] = mapped[alias].union(FrameSet::one(frame));
            let old = self.point[alias][frame].replace(sample.spte);
            if old != Some(sample.spte) {
                self.touched[alias] = self.touched[alias].union(FrameSet::one(frame));
                self.change(step, (alias, frame), old, Some(sample.spte), judge)?;
            }
        }
        for (alias, mapped) in mapped.into_iter().enumerate() {
            let lost = self.mapped[alias].minus(mapped);
            self.touched[alias] = self.touched[alias].union(lost);
            self.mapped[alias] = mapped;
            for frame in lost.iter() {
                let old = self.point[alias][frame].take();
                self.change(step, (alias, frame), old, None, judge)?;
            }
        }
        let point = &self.point;
        self.stale.retain(|stale| !is_shown(stale, |alias, frame| point[alias][frame]));
        Ok(())
    }

    /// Begin with the tables as they were before the op.
    fn start_sampling(&mut self, step: &Step<'_>) {
        self.sampled = true;
        self.touched = [FrameSet::EMPTY; ALIASES];
        self.mapped = [FrameSet::EMPTY; ALIASES];
        for alias in 0..step.view.aliases() {
            self.point[alias] = std::array::from_fn(|frame| step.view.before(alias, frame));
            let mapped = self.point[alias].iter().enumerate().filter(|(_, spte)| spte.is_some());
            self.mapped[alias] = mapped.fold(FrameSet::EMPTY, |set, (frame, _)| set.union(FrameSet::one(frame)));
        }
    }

    /// Remember a translation that lost its page, a right or its size.
    fn change<E>(
        &mut self,
        step: &Step<'_>,
        (alias, frame): (usize, usize),
        old: Option<Spte>,
        now: Option<Spte>,
        judge: &mut dyn FnMut(Judged, &Stale) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(spte) = old.filter(|old| !now.is_some_and(|now| covers(now, *old))) else { return Ok(()) };
        let vcpus = VcpuSet::first(step.model.vm().vcpus());
        let stale = Stale { frame: frame as u8, alias: alias as u8, spte, vcpus, since: step.at };
        judge(Judged::Lost, &stale)?;
        self.stale.push(stale);
        Ok(())
    }

    fn flush<E>(
        &mut self,
        step: &Step<'_>,
        flush: &Flush,
        judge: &mut dyn FnMut(Judged, &Stale) -> Result<(), E>,
    ) -> Result<(), E> {
        let vm = step.model.vm();
        if let Flush::All { vcpus } = *flush {
            for stale in &mut self.stale {
                stale.vcpus = stale.vcpus.minus(vcpus);
                if stale.vcpus.is_empty() {
                    judge(Judged::Flushed, stale)?;
                }
            }
            self.stale.retain(|stale| !stale.vcpus.is_empty());
        } else {
            let mut judged = Ok(());
            self.stale.retain(|stale| {
                let dropped = stale.is_covered(vm, flush);
                if dropped && judged.is_ok() {
                    judged = judge(Judged::Flushed, stale);
                }
                !dropped
            });
            judged?;
        }
        Ok(())
    }
}

/// Whether the tables show the translation again: then it is not stale any more.
fn is_shown(stale: &Stale, now: impl Fn(usize, usize) -> Option<Spte>) -> bool {
    now(stale.alias.into(), stale.frame.into()).is_some_and(|now| covers(now, stale.spte))
}

/// Whether `now` promises all that `old` did, and a flush of what `now` translates drops `old` and nothing else: a leaf of
/// another size is another entry of the TLB.
fn covers(now: Spte, old: Spte) -> bool {
    now.pfn() == old.pfn() && now.rights().contains(old.rights()) && now.level() == old.level()
}
