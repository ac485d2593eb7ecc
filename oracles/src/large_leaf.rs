//! `large_leaf`: what a leaf says of one of its pages it says of all, so it translates none that differ. All of its pages are of
//! one memory type.
//!
//! A large translation that was replaced and not flushed is `alias_flush`'s to judge.

use crate::step::{Blame, Clause, Objection, Oracle, Step, Tally};
use gpa_model::divisions::divides;
use gpa_model::{FrameSet, Level, Spte};

const MEMORY_TYPE: usize = 0;

/// The oracle `large_leaf`.
#[derive(Debug)]
pub struct LargeLeaf;

impl Oracle for LargeLeaf {
    fn name(&self) -> &'static str {
        "large_leaf"
    }

    fn clauses(&self) -> &'static [Clause] {
        const { &[Clause::tables("memory-type")] }
    }

    fn check(&mut self, step: &Step<'_>, tally: &mut [Tally]) -> Result<(), Objection> {
        let vm = step.model.vm();
        if !step.shows.tables {
            if step.accessed.is_some() {
                tally.iter_mut().for_each(Tally::cannot);
            }
            return Ok(());
        }
        if vm.largest_leaf() == Level::Page4K {
            return Ok(());
        }
        for number in 0..step.view.aliases() {
            let touched = step.view.changed(number).union(step.allowed.changed);
            for frame in step.view.present(number).intersect(touched).iter() {
                if let Some(spte) = step.view.now(number, frame).filter(|spte| spte.level() != Level::Page4K) {
                    let blame = Blame { frame, alias: vm.stolen().alias(number) };
                    check_types(step, spte, blame, &mut tally[MEMORY_TYPE])?;
                }
            }
        }
        Ok(())
    }
}

fn check_types(step: &Step<'_>, spte: Spte, blame: Blame, tally: &mut Tally) -> Result<(), Objection> {
    let (uncacheable, leaf) = (step.model.divisions().uncacheable(), frames_of(step, spte, blame));
    tally.check_if(!uncacheable.is_empty());
    if !divides(uncacheable, leaf) {
        return Ok(());
    }
    Err(spans(MEMORY_TYPE, step, spte, blame, "memory type", uncacheable.intersect(leaf)))
}

fn frames_of(step: &Step<'_>, spte: Spte, blame: Blame) -> FrameSet {
    let vm = step.model.vm();
    vm.frames_of_leaf(vm.gfn(blame.frame), spte.level())
}

fn spans(clause: usize, step: &Step<'_>, spte: Spte, blame: Blame, what: &str, odd: FrameSet) -> Objection {
    let vm = step.model.vm();
    let gpa = vm.gpa(blame.frame, vm.stolen().alias_index(blame.alias));
    let odd: Vec<String> = odd.iter().map(|frame| vm.gfn(frame).to_string()).collect();
    let why =
        format!("{gpa:?} is mapped to {spte}, but of its frames {} have another {what} than the rest", odd.join(" "));
    Objection { clause, blame: Some(blame), why }
}
