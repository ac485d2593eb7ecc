//! A recorded trace as an [`Mmu`], so that the oracles judge real KVM where there is none.

use crate::support::supports;
use crate::trace::Trace;
use gpa_model::{Exit, FlushBackend, Gpa, Host, Mmu, Model, Op, Shows, Spte, Vm};

/// Answers each op with what was observed when it was recorded.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    trace: Trace,
    /// Ops that can be asked about: those with an observation, and those that mean nothing in their state.
    known: Vec<bool>,
    at: usize,
}

impl Replay {
    /// Answer from `trace` from now on, from its start.
    pub fn load(&mut self, trace: Trace) {
        self.trace = trace;
        self.rewind();
    }

    /// The trace answered from.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Take the trace out, to record over it.
    pub fn unload(&mut self) -> Trace {
        self.known.clear();
        self.at = 0;
        std::mem::take(&mut self.trace)
    }

    fn rewind(&mut self) {
        self.at = 0;
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

    /// The number of the next op that equals `op`.
    fn find(&self, op: &Op) -> Option<usize> {
        let rest = self.trace.program.ops.iter().enumerate().skip(self.at);
        rest.into_iter().find(|(_, recorded)| *recorded == op).map(|(at, _)| at)
    }
}

impl Mmu for Replay {
    /// The next observation, if it is one of this op.
    fn step(&mut self, _host: &Host, _flush: &mut FlushBackend, op: &Op) -> Exit {
        let next =
            (self.at..self.trace.program.ops.len()).find(|&at| self.trace.observation(at).is_some() && self.known[at]);
        match next {
            Some(at) if self.trace.program.ops[at] == *op => {
                self.at = at + 1;
                self.trace.observation(at).unwrap_or(Exit::Unsupported)
            }
            _ => Exit::Unsupported,
        }
    }

    fn walk(&self, _gpa: Gpa) -> Option<Spte> {
        None
    }

    fn supports(&self, op: &Op) -> bool {
        let realisation = self.trace.fingerprint.realisation;
        supports(&self.trace.program.vm, op, realisation) && self.find(op).is_some_and(|at| self.known[at])
    }

    fn shows(&self) -> Shows {
        Shows {
            tables: false,
            flushes: false,
            keys: false,
            rmap: false,
            roots: false,
            native: self.trace.fingerprint.native,
        }
    }

    /// Back to the start of the same trace.
    fn reset(&mut self, _vm: &Vm) {
        self.at = 0;
    }
}
