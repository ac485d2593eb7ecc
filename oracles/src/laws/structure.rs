//! `structure`: what a target keeps beside its tables agrees with them. Each present leaf is in the rmap exactly once,
//! under its own gfn, and nothing else is; each shadow page is unique, and no list has one that is gone; a root that is retired keeps
//! no page that the host took away, and what hung from it is freed; a page is held by the fault that looked it up, and by none after that.
//!
//! A leaf that rmap lost is never zapped; an rmap entry without its leaf is a use after free waiting for the next walk.

use crate::observe::{Blame, Clause, End, Objection, Oracle, Step, Tally};
use gpa_model::limits::ALIASES;
use gpa_model::{Alias, FrameSet, Gfn, GfnIndexed, Gpa};

const RMAP: usize = 0;
const UNIQUE: usize = 1;
const NX_SPLIT: usize = 2;
const RETIRED: usize = 3;
const LEAKED: usize = 4;
const PINNED: usize = 5;

/// The oracle `structure`.
#[derive(Debug, Default)]
pub struct Structure {
    shadow_pages: Vec<(u64, u64, u8, bool, u8, bool)>,
    /// Leaves that no GPA leads to, as rmap lists them and as they are: which, and its frame.
    listed: Vec<(u64, u64)>,
    leaves: Vec<(u64, u64)>,
}

impl Oracle for Structure {
    fn name(&self) -> &'static str {
        "structure"
    }

    fn clauses(&self) -> &'static [Clause] {
        const {
            &[
                Clause::rmap("rmap"),
                Clause::keys("unique"),
                Clause::keys("nx-split"),
                Clause::roots("retired"),
                Clause::roots("leaked"),
                Clause::pins("pinned"),
            ]
        }
    }

    /// Which pages are held. The tables are judged by others between ops, and what lies beside them is only walked at the end.
    fn check(&mut self, step: &Step<'_>, tally: &mut [Tally]) -> Result<(), Objection> {
        check_pins(step, &mut tally[PINNED])
    }

    fn finish(&mut self, end: &End<'_>, tally: &mut [Tally]) -> Result<(), Objection> {
        let [rmap, roots, unique] =
            [RMAP, RETIRED, UNIQUE].map(|clause| self.clauses()[clause].can_be_checked(end.capabilities));
        match rmap {
            true => {
                check_rmap(end, &mut tally[RMAP])?;
                self.check_shadow_rmap(end, &mut tally[RMAP])?;
            }
            false => tally[RMAP].cannot(),
        }
        match roots {
            true => check_roots(end, tally)?,
            false => [RETIRED, LEAKED].into_iter().for_each(|clause| tally[clause].cannot()),
        }
        if !unique {
            tally[UNIQUE].cannot();
            tally[NX_SPLIT].cannot();
            return Ok(());
        }
        self.check_unique(end, &mut tally[UNIQUE])?;
        self.check_nx_split(end, &mut tally[NX_SPLIT])
    }
}

/// Each fault that waits for its end holds its page, and nobody else holds any.
fn check_pins(step: &Step<'_>, tally: &mut Tally) -> Result<(), Objection> {
    if !step.capabilities.pins {
        if step.accessed.is_some() {
            tally.cannot();
        }
        return Ok(());
    }
    let (pins, pending) = (step.host.pins(), step.model.faults_pending());
    if pins.taken() || pending != 0 {
        tally.check();
    } else if step.accessed.is_some() {
        tally.skip();
    }
    let held = pins.held();
    let why = match pins.unheld() {
        Some(pfn) => format!("{pfn} was let go of by somebody who did not hold it: it may be another's now"),
        None if held > pending => format!("{held} pages are held, by {pending} faults: one is never freed"),
        None if held < pending => {
            format!("{held} pages are held, by {pending} faults: one may be gone before it is mapped")
        }
        None => return Ok(()),
    };
    let blame = step.accessed_frame().map(|(frame, alias)| Blame { frame, alias });
    Err(Objection { clause: PINNED, blame, why })
}

fn check_rmap(end: &End<'_>, tally: &mut Tally) -> Result<(), Objection> {
    let vm = end.model.vm();
    let object = |gpa: Gpa, what: String| {
        let blame = vm.locate(gpa).map(|(frame, alias)| Blame { frame, alias });
        Err(Objection { clause: RMAP, blame, why: format!("{gpa:?} {what}") })
    };
    // Idle entries are there although a walk does not find them.
    let mut present: [FrameSet; ALIASES] = std::array::from_fn(|alias| end.view.present(alias));
    let mut listed = [FrameSet::EMPTY; ALIASES];
    let mut any = false;
    for key in end.keys {
        let GfnIndexed::Rmap { gfn, gpa, level, idle } = *key else { continue };
        any = true;
        let (right, alias) = vm.stolen().split(gpa);
        if right.raw() != gfn {
            return object(gpa, format!("is in the rmap of gfn {gfn:#x} instead of {right}"));
        }
        let alias = vm.stolen().alias_index(alias);
        // Between the first pages of two frames nobody looks.
        let frames = vm.frames_of_leaf(right, level);
        let is_leaf = |frame: usize| idle || end.view.now(alias, frame).is_some_and(|spte| spte.level() == level);
        if vm.frame(right).is_none() || !frames.iter().all(is_leaf) {
            return object(gpa, format!("is in the rmap of gfn {gfn:#x}, but nothing is mapped there"));
        }
        if !listed[alias].intersect(frames).is_empty() {
            return object(gpa, format!("is in the rmap of gfn {gfn:#x} twice"));
        }
        listed[alias] = listed[alias].union(frames);
        present[alias] = present[alias].union(frames);
    }
    for (alias, (listed, present)) in listed.iter().zip(present).enumerate().take(end.view.aliases()) {
        any |= !present.is_empty();
        if let Some(frame) = present.minus(*listed).first() {
            return object(vm.gpa(frame, alias), format!("is mapped, but is not in the rmap of gfn {}", vm.gfn(frame)));
        }
    }
    tally.check_if(any);
    Ok(())
}

/// A leaf of a retired root has a page that is still the host's to give; a table page that nothing leads to is free.
fn check_roots(end: &End<'_>, tally: &mut [Tally]) -> Result<(), Objection> {
    let vm = end.model.vm();
    let (mut any_leaf, mut any_table) = (false, false);
    for key in end.keys {
        match *key {
            GfnIndexed::Retired { gfn, pfn, level } => {
                any_leaf = true;
                let first = Gfn::new(gfn);
                let page = |frame: usize| pfn.add(vm.gfn(frame).offset_from(first).unwrap_or(0));
                let gone = |frame: &usize| end.model.page(end.host, *frame) != Some(page(*frame));
                if let Some(frame) = vm.frames_of_leaf(first, level).iter().find(gone) {
                    let why =
                        format!("a retired root still maps gfn {} to {}, which is gone", vm.gfn(frame), page(frame));
                    return Err(Objection { clause: RETIRED, blame: Some(Blame { frame, alias: Alias::NONE }), why });
                }
            }
            GfnIndexed::Table { gfn, alias, level, reached } => {
                any_table = true;
                if !reached {
                    let page = format!("gfn {gfn:#x}, stolen bits {:#x}, level {level}", alias.raw());
                    let why = format!("the table page of {page} is not free, but no root leads to it");
                    return Err(Objection { clause: LEAKED, blame: None, why });
                }
            }
            _ => {}
        }
    }
    tally[RETIRED].check_if(any_leaf);
    tally[LEAKED].check_if(any_table);
    Ok(())
}

impl Structure {
    fn check_shadow_rmap(&mut self, end: &End<'_>, tally: &mut Tally) -> Result<(), Objection> {
        self.listed.clear();
        self.leaves.clear();
        for key in end.keys {
            match *key {
                GfnIndexed::ShadowRmap { gfn, spte } => self.listed.push((spte, gfn)),
                GfnIndexed::ShadowLeaf { gfn, spte } => self.leaves.push((spte, gfn)),
                _ => {}
            }
        }
        tally.check_if(!self.listed.is_empty() || !self.leaves.is_empty());
        self.listed.sort_unstable();
        self.leaves.sort_unstable();
        if self.listed == self.leaves {
            return Ok(());
        }
        let differ = self.listed.iter().zip(&self.leaves).find(|(listed, leaf)| listed != leaf);
        let longer = if self.listed.len() > self.leaves.len() { &self.listed } else { &self.leaves };
        let why = match differ {
            Some(((this, listed), (that, gfn))) if this == that => {
                format!("a leaf of a shadow page is for gfn {gfn:#x}, but is in the rmap of gfn {listed:#x}")
            }
            Some(((this, listed), (that, _))) if this < that => {
                format!("the rmap of gfn {listed:#x} has a leaf of a shadow page that is not there, or has it twice")
            }
            Some((_, (_, gfn))) => format!("a leaf of a shadow page for gfn {gfn:#x} is not in the rmap"),
            None => {
                let gfn = longer.last().map_or(0, |(_, gfn)| *gfn);
                format!("rmap and the leaves of shadow pages differ at gfn {gfn:#x}")
            }
        };
        Err(Objection { clause: RMAP, blame: None, why })
    }

    fn check_unique(&mut self, end: &End<'_>, tally: &mut Tally) -> Result<(), Objection> {
        self.shadow_pages.clear();
        self.shadow_pages.extend(end.keys.iter().filter_map(|key| match *key {
            GfnIndexed::ShadowPage { gfn, alias, level, direct, access, guest_mode } => {
                Some((gfn, alias.raw(), level, direct, access.bits(), guest_mode))
            }
            _ => None,
        }));
        tally.check_if(self.shadow_pages.len() > 1);
        self.shadow_pages.sort_unstable();
        let twice = self.shadow_pages.windows(2).find(|pair| pair[0] == pair[1]);
        twice.map_or(Ok(()), |pair| {
            let (gfn, alias, level, direct, ..) = pair[0];
            let kind = if direct { "" } else { ", as a table of the guest" };
            let why = format!("two shadow pages are for gfn {gfn:#x}, stolen bits {alias:#x}, level {level}{kind}");
            Err(Objection { clause: UNIQUE, blame: None, why })
        })
    }

    /// What recovery will take away is there, once each: after [`Structure::check_unique`], which has sorted what is there.
    fn check_nx_split(&self, end: &End<'_>, tally: &mut Tally) -> Result<(), Objection> {
        let listed = end.keys.iter().enumerate().filter_map(|(at, key)| match *key {
            GfnIndexed::NxSplit { gfn, alias, level } => Some((at, (gfn, alias.raw(), level))),
            _ => None,
        });
        let mut any = false;
        for (at, page) in listed {
            any = true;
            let (gfn, alias, level) = page;
            let object = |what: &str| {
                let why = format!("the shadow page of gfn {gfn:#x}, stolen bits {alias:#x}, level {level} {what}");
                Err(Objection { clause: NX_SPLIT, blame: None, why })
            };
            let there = self.shadow_pages.binary_search_by(|&(gfn, alias, level, ..)| (gfn, alias, level).cmp(&page));
            if there.is_err() {
                return object("is to be recovered, but it is gone: the memory behind it may be another's by now");
            }
            if end.keys[..at].contains(&end.keys[at]) {
                return object("is on the list of those to recover twice");
            }
        }
        tally.check_if(any);
        Ok(())
    }
}
