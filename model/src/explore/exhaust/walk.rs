//! The way through every program of a scope, shorter ones first.

use super::Scope;
use super::fold::{CLASSES, Class, Letter, NAMES, Used};
use super::states::States;
use crate::host::Host;
use crate::limits::{FRAMES, HOST_PAGES, OPS, SCOPE_FRAMES, SCOPE_OPS, SCOPE_SLOTS};
use crate::mmu::Exit;
use crate::program::Program;
use crate::reference::Model;
use std::ops::ControlFlow;

/// What a visitor makes of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Its last op ended so. Programs that begin with it come next.
    Ended(Exit),
    /// None that begins with it is wanted.
    Cut,
    /// No further program is wanted.
    Stop,
}

/// Where a visit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Whether the program is visited for the first time. On the way to longer ones it comes again, so that its last op can
    /// be asked for.
    pub first: bool,
    /// How many programs it stands for, itself included.
    pub symmetric: u64,
    /// How much of the programs of its length has been visited, in thousandths.
    pub permille: u32,
}

/// What an exploration came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explored {
    /// Whether every program was visited.
    pub all: bool,
    /// From how many different states of the model programs went on, with every op that it accepts there. Those that the last op
    /// of the longest programs leads to are not among them.
    pub states: u64,
}

/// What a program leads to.
#[derive(Clone)]
struct State {
    model: Model,
    host: Host,
    used: Used,
    symmetric: u64,
    /// Thousandths of the walk that lie below.
    share: f64,
}

struct Walk<'a> {
    scope: &'a Scope,
    names: Used,
    alphabet: Vec<Letter>,
    program: Program,
    length: usize,
    permille: u32,
    states: States,
    visit: &'a mut dyn FnMut(&Program, Visit) -> Answer,
}

impl Scope {
    /// Visit every program of 1 to `ops` ops, at most [`SCOPE_OPS`], in an order that is always the same: by length, and
    /// within a length by the alphabet.
    pub fn explore(&self, ops: usize, visit: &mut dyn FnMut(&Program, Visit) -> Answer) -> Explored {
        let alphabet: Vec<Letter> = self.alphabet().into_iter().map(|op| self.letter(op)).collect();
        let program = Program { vm: self.vm, ops: Vec::new(), comment: Vec::new() };
        let states = States::default();
        let mut walk =
            Walk { scope: self, names: self.names(), alphabet, program, length: 0, permille: 0, states, visit };
        let start = State {
            model: Model::new(&self.vm),
            host: Host::new(&self.vm),
            used: [0; CLASSES],
            symmetric: 1,
            share: 1e3,
        };
        let all = (1..=ops.min(SCOPE_OPS)).all(|length| {
            (walk.length, walk.permille) = (length, 0);
            walk.below(&start, 0.0).is_continue()
        });
        Explored { all, states: walk.states.len() }
    }
}

impl Walk<'_> {
    /// Visit what begins with the program that led to `state`, `done` thousandths into the walk.
    fn below(&mut self, state: &State, mut done: f64) -> ControlFlow<()> {
        let last = self.program.ops.len() + 1 == self.length;
        if last {
            self.states.note(&state.model, &state.host);
        }
        let share = state.share / self.alphabet.len() as f64;
        for at in 0..self.alphabet.len() {
            let Letter { op, names } = self.alphabet[at];
            done += share;
            let Some((used, ways)) = self.fold(state.used, names) else { continue };
            if !state.model.accepts(&state.host, &op) {
                continue;
            }
            let symmetric = state.symmetric * ways;
            self.permille = done as u32;
            self.program.ops.push(op);
            let visit = Visit { first: last, symmetric, permille: self.permille };
            match (self.visit)(&self.program, visit) {
                Answer::Ended(exit) if !last => {
                    let mut next = State { used, symmetric, share, ..state.clone() };
                    next.host.apply(&op);
                    next.host.settle(&op, &exit);
                    next.model.step(&next.host, &op, &exit);
                    self.below(&next, done - share)?;
                }
                Answer::Ended(_) | Answer::Cut => {}
                Answer::Stop => return ControlFlow::Break(()),
            }
            self.program.ops.pop();
        }
        ControlFlow::Continue(())
    }

    /// The names used after an op that uses `names`, and how many ways there are to choose those that are new; `None` if one
    /// is used before its turn.
    fn fold(&self, mut used: Used, names: [Option<(Class, u8)>; NAMES]) -> Option<(Used, u64)> {
        let mut ways = 1;
        if self.scope.folded {
            for (class, name) in names.into_iter().flatten() {
                let used = &mut used[class as usize];
                if name > *used {
                    return None;
                }
                if name == *used {
                    ways *= u64::from(self.names[class as usize] - *used);
                    *used += 1;
                }
            }
        }
        Some((used, ways))
    }
}

const _: () = assert!(SCOPE_FRAMES * SCOPE_SLOTS <= HOST_PAGES && SCOPE_FRAMES <= FRAMES && SCOPE_OPS <= OPS);
