//! What symbols mean: what modules define, what the environment answers, and addresses that trap for all others.

use super::low::Low;
use crate::memory::UNANSWERED;
use crate::single::Single;
use std::collections::BTreeMap;

/// Distance of the addresses that trap.
const STEP: u64 = 64;

/// What is found under a symbol.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// A C function of this program, with up to six arguments.
    Function(u64),
    /// Code of this program that has conventions of its own.
    Code(u64),
    /// A function that returns this number.
    Constant(u32),
}

/// All symbols.
#[derive(Debug)]
pub(crate) struct Symbols {
    defined: BTreeMap<String, (u64, bool)>,
    answers: BTreeMap<&'static str, Answer>,
    resolved: BTreeMap<String, u64>,
    constants: BTreeMap<u32, u64>,
}

static NAMES: Single<Vec<String>> = Single::new(Vec::new());

impl Symbols {
    /// What the environment answers.
    pub(crate) fn new(answers: BTreeMap<&'static str, Answer>) -> Self {
        Self { defined: BTreeMap::new(), answers, resolved: BTreeMap::new(), constants: BTreeMap::new() }
    }

    /// A module defines `name`.
    pub(crate) fn define(&mut self, name: &str, address: u64, weak: bool) {
        let known = self.defined.get(name);
        if known.is_none_or(|(_, was_weak)| *was_weak && !weak) {
            self.defined.insert(name.to_owned(), (address, weak));
        }
    }

    /// Where `name` lies, if a module defines it.
    pub(crate) fn address(&self, name: &str) -> Option<u64> {
        self.defined.get(name).map(|(address, _)| *address)
    }

    /// Where `name` lies: for a symbol that nothing answers, an address that nothing can be done with.
    pub(crate) fn resolve(&mut self, name: &str, low: &mut Low) -> u64 {
        if let Some(address) = self.address(name).or_else(|| self.resolved.get(name).copied()) {
            return address;
        }
        let address = match self.answers.get(name) {
            Some(Answer::Function(target)) => low.call(*target),
            Some(Answer::Code(target)) => low.jump(*target),
            Some(Answer::Constant(value)) => *self.constants.entry(*value).or_insert_with(|| low.constant(*value)),
            None => {
                let mut names = NAMES.borrow();
                names.push(name.to_owned());
                UNANSWERED + (names.len() as u64 - 1) * STEP
            }
        };
        self.resolved.insert(name.to_owned(), address);
        address
    }
}

/// The symbol whose address, which traps, `address` is.
pub(crate) fn unanswered(address: u64) -> Option<String> {
    let index = address.checked_sub(UNANSWERED)? / STEP;
    NAMES.borrow().get(index as usize).cloned()
}
