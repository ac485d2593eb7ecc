//! Watching programs from inside KVM, where it lets itself be looked into.

use super::Machine;
use crate::driver::takes_away;
use crate::error::MachineError;
use gpa_model::{Op, Program, Vm};

impl Machine {
    /// Watch `program`, which comes next, if what it does can be seen: not while a fault is held open, nor when pages get other names but
    /// stay where they are, which no notifier hears of.
    pub(super) fn watch(&mut self, program: &Program) {
        let is_visible = |op: &Op| match *op {
            Op::FaultBegin { .. } => false,
            Op::Unmap { by, .. } => takes_away(by),
            _ => true,
        };
        let watched = self.sight.is_some() && program.ops.iter().all(is_visible);
        self.seen = watched.then(|| vec![Vec::new(); program.ops.len()]);
    }

    /// What there is before the first op is none of the program's.
    pub(super) fn look_before(&mut self) -> Result<(), MachineError> {
        match (&mut self.sight, &self.seen) {
            (Some(sight), Some(_)) => sight.begin(),
            _ => Ok(()),
        }
    }

    /// See what op number `at` changed.
    pub(super) fn look(&mut self, vm: &Vm, at: usize) -> Result<(), MachineError> {
        self.see(vm, at, false)
    }

    /// See what is kept by gfn after op number `at`, the last.
    pub(super) fn look_at_keys(&mut self, vm: &Vm, at: usize) -> Result<(), MachineError> {
        self.see(vm, at, true)
    }

    fn see(&mut self, vm: &Vm, at: usize, end: bool) -> Result<(), MachineError> {
        match (&mut self.sight, &mut self.seen) {
            (Some(sight), Some(seen)) => sight.look(vm, &self.memory, &self.stamps, end, &mut seen[at]),
            _ => Ok(()),
        }
    }
}
