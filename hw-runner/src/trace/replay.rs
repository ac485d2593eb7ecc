//! A recorded trace as an [`Mmu`], so that the oracles can judge real KVM without one.

use crate::kvm::mmu_debugfs::MmuEvent;
use crate::trace::Trace;
use crate::trace::support::supports;
use gpa_model::{Capabilities, Exit, FlushBackend, GfnIndexed, Gpa, Host, Mmu, Model, Op, Spte, VmConfig};
use std::collections::BTreeMap;

/// Answers each op with its recorded observation.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    trace: Trace,
    /// Whether each op can be answered: it has an observation, or the model does not accept it.
    known: Vec<bool>,
    at: usize,
    /// The SPTEs so far, as far as the trace has them.
    tables: BTreeMap<Gpa, Spte>,
    /// The entries indexed by gfn, at the end.
    keys: Vec<GfnIndexed>,
}

impl Replay {
    /// Answers from the start of `trace` from now on.
    pub fn load(&mut self, trace: Trace) {
        self.trace = trace;
        self.rewind();
    }

    /// The trace that answers.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Returns the trace, whose allocations can be reused.
    pub fn unload(&mut self) -> Trace {
        self.known.clear();
        self.start();
        std::mem::take(&mut self.trace)
    }

    fn start(&mut self) {
        self.at = 0;
        self.tables.clear();
        self.keys.clear();
    }

    fn rewind(&mut self) {
        self.start();
        self.known.clear();
        let program = &self.trace.program;
        let (mut host, mut model) = (Host::new(&program.vm), Model::new(&program.vm));
        for (at, op) in program.ops.iter().enumerate() {
            let accepted = model.accepts(&host, op);
            let observed = self.trace.observation(at).filter(|exit| *exit != Exit::Unsupported);
            if let (true, Some(exit)) = (accepted, observed) {
                host.apply(op);
                model.step(&host, op, &exit);
            }
            self.known.push(observed.is_some() || !accepted);
        }
    }

    /// Applies the MMU events up to op number `at`.
    fn see(&mut self, at: usize, flush: &mut FlushBackend) {
        for seen in self.trace.seen.iter().take(at + 1).skip(self.at).flatten() {
            match *seen {
                MmuEvent::Spte(gpa, Some(spte)) => drop(self.tables.insert(gpa, spte)),
                MmuEvent::Spte(gpa, None) => drop(self.tables.remove(&gpa)),
                MmuEvent::Flush(asked) => flush.observed(asked),
                MmuEvent::Key(key) => self.keys.push(key),
            }
        }
    }

    /// The number of the next op that equals `op`.
    fn find(&self, op: &Op) -> Option<usize> {
        let rest = self.trace.program.ops.iter().enumerate().skip(self.at);
        rest.into_iter().find(|(_, recorded)| *recorded == op).map(|(at, _)| at)
    }
}

impl Mmu for Replay {
    /// The next observation, if it belongs to this op.
    fn step(&mut self, _host: &Host, flush: &mut FlushBackend, op: &Op) -> Exit {
        let next =
            (self.at..self.trace.program.ops.len()).find(|&at| self.trace.observation(at).is_some() && self.known[at]);
        match next {
            Some(at) if self.trace.program.ops[at] == *op => {
                self.see(at, flush);
                self.at = at + 1;
                self.trace.observation(at).unwrap_or(Exit::Unsupported)
            }
            _ => Exit::Unsupported,
        }
    }

    fn walk(&self, gpa: Gpa) -> Option<Spte> {
        self.tables.get(&gpa).copied()
    }

    fn inspect(&self, visit: &mut dyn FnMut(GfnIndexed)) {
        self.keys.iter().copied().for_each(visit);
    }

    fn supports(&self, op: &Op) -> bool {
        let alias_method = self.trace.fingerprint.alias_method;
        supports(&self.trace.program.vm, op, alias_method) && self.find(op).is_some_and(|at| self.known[at])
    }

    fn capabilities(&self) -> Capabilities {
        let inside = !self.trace.seen.is_empty();
        let native = self.trace.fingerprint.native;
        let alias_method = self.trace.fingerprint.alias_method;
        let one_slot = alias_method.slots(&self.trace.program.vm) == 1;
        let own_aliases = one_slot || self.trace.program.vm.stolen().alias_count() == 1;
        Capabilities {
            tables: inside,
            flushes: inside,
            keys: inside,
            rmap: inside,
            native,
            refuses_aliased_prefault: true,
            own_aliases,
            told_alias_bits: alias_method.alias_in_tables(usize::from(u8::MAX)) as u8,
            ..Capabilities::EXITS
        }
    }

    /// Starts the same trace again.
    fn reset(&mut self, _vm: &VmConfig) {
        self.start();
    }
}
