//! `large_leaf`: what a leaf says of one of its pages it says of all, so it translates none that differ. All of its pages are of
//! one memory type, and all are private or all shared. Where a flaw of the processor forbids it, no large leaf is executable.
//!
//! A large translation that was replaced and not flushed is `alias_flush`'s to judge.

use crate::observe::{Blame, Clause, Objection, Oracle, Step, Tally};
use gpa_model::{FrameSet, Level, Rights, Spte};

const MEMORY_TYPE: usize = 0;
const ATTRIBUTES: usize = 1;
const EXECUTABLE: usize = 2;

/// The oracle `large_leaf`.
#[derive(Debug)]
pub struct LargeLeaf;

impl Oracle for LargeLeaf {
    fn name(&self) -> &'static str {
        "large_leaf"
    }

    fn clauses(&self) -> &'static [Clause] {
        const { &[Clause::tables("memory-type"), Clause::tables("attributes"), Clause::tables("executable")] }
    }

    fn check(&mut self, step: &Step<'_>, tally: &mut [Tally]) -> Result<(), Objection> {
        let vm = step.model.vm();
        if !step.capabilities.tables {
            if step.accessed.is_some() {
                tally.iter_mut().for_each(Tally::cannot);
            }
            return Ok(());
        }
        if vm.largest_leaf() == Level::Page4K {
            return Ok(());
        }
        let (uncacheable, private) =
            (step.model.memory_attributes().uncacheable(), step.model.memory_attributes().private());
        for number in 0..step.view.aliases() {
            let touched = step.view.changed(number).union(step.allowed.changed);
            for frame in step.view.present(number).intersect(touched).iter() {
                if let Some(spte) = step.view.now(number, frame).filter(|spte| spte.level() != Level::Page4K) {
                    let blame = Blame { frame, alias: vm.stolen().alias(number) };
                    check_alike(step, spte, blame, MEMORY_TYPE, uncacheable, tally)?;
                    check_alike(step, spte, blame, ATTRIBUTES, private, tally)?;
                    check_executable(step, spte, blame, &mut tally[EXECUTABLE])?;
                }
            }
        }
        Ok(())
    }
}

fn check_executable(step: &Step<'_>, spte: Spte, blame: Blame, tally: &mut Tally) -> Result<(), Objection> {
    let forbidden = step.model.vm().nx_huge_pages();
    tally.check_if(forbidden);
    if !forbidden || !spte.rights().contains(Rights::X) {
        return Ok(());
    }
    let why = format!("{} is mapped to {spte}, but no large leaf may be executable", step.model.vm().gfn(blame.frame));
    Err(Objection { clause: EXECUTABLE, blame: Some(blame), why })
}

/// All frames of the leaf are in `set`, or none is.
fn check_alike(
    step: &Step<'_>,
    spte: Spte,
    blame: Blame,
    clause: usize,
    set: FrameSet,
    tally: &mut [Tally],
) -> Result<(), Objection> {
    let vm = step.model.vm();
    let leaf = vm.frames_of_leaf(vm.gfn(blame.frame), spte.level());
    tally[clause].check_if(!set.is_empty());
    if !set.divides(leaf) {
        return Ok(());
    }
    let gpa = vm.gpa(blame.frame, vm.stolen().alias_index(blame.alias));
    let odd: Vec<String> = set.intersect(leaf).iter().map(|frame| vm.gfn(frame).to_string()).collect();
    let what = if clause == MEMORY_TYPE { "are uncacheable" } else { "are private" };
    let why = format!("{gpa:?} is mapped to {spte}, but of its frames only {} {what}", odd.join(" "));
    Err(Objection { clause, blame: Some(blame), why })
}
