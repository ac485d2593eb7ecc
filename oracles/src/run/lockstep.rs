//! The lockstep run: one program on a target and on the model, judged after every op.

use super::features::Features;
use crate::observe::{Clause, End, Oracle, Signature, Step, Tally, View, Violation};
use gpa_model::{
    Access, BackendMode, Capabilities, Exit, FlushBackend, GfnIndexed, Host, Mmu, Model, Op, OpKind, Program, VmConfig,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What became of the ops of the programs run so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpCounts {
    /// Carried out and judged.
    pub judged: u64,
    /// Skipped because they mean nothing in their state.
    pub skipped: u64,
    /// Skipped because the target cannot carry them out.
    pub unsupported: u64,
}

/// Runs programs. Keeps its allocations from one to the next.
pub struct Lockstep {
    model: Model,
    host: Host,
    backend: BackendMode,
    flush: FlushBackend,
    view: View,
    oracles: Vec<Box<dyn Oracle + Send>>,
    tallies: Vec<Vec<Tally>>,
    features: Features,
    keys: Vec<GfnIndexed>,
    counts: OpCounts,
    at: usize,
    last_exit: Option<Exit>,
}

/// One op as [`Lockstep::watch`] reports it.
#[derive(Debug)]
pub enum Event<'a> {
    /// It was carried out and judged; the violation is the one it caused, if it did.
    Judged(&'a Step<'a>, Option<&'a Violation>),
    /// It means nothing in this state.
    Skipped(usize, &'a Op),
    /// The target cannot carry it out.
    Unsupported(usize, &'a Op),
}

impl Default for Lockstep {
    fn default() -> Self {
        Self::new(crate::laws::all())
    }
}

impl Lockstep {
    /// A run judged by `oracles`, which are asked in this order.
    pub fn new(oracles: Vec<Box<dyn Oracle + Send>>) -> Self {
        let tallies = oracles.iter().map(|oracle| vec![Tally::default(); oracle.clauses().len()]).collect();
        let vm = VmConfig::default();
        Self {
            model: Model::new(&vm),
            host: Host::default(),
            backend: BackendMode::default(),
            flush: FlushBackend::default(),
            view: View::default(),
            oracles,
            tallies,
            features: Features::default(),
            keys: Vec::new(),
            counts: OpCounts::default(),
            at: 0,
            last_exit: None,
        }
    }

    /// Run `program` on `mmu`, which is reset first, and return the first violation. A panic of the target is one, and so
    /// is what it says itself ([`Mmu::alarm`]).
    pub fn run<M: Mmu>(&mut self, mmu: &mut M, program: &Program) -> Option<Violation> {
        self.watch(mmu, program, |_| {})
    }

    /// The same, and show each op as it is judged.
    pub fn watch<M: Mmu>(
        &mut self,
        mmu: &mut M,
        program: &Program,
        mut show: impl FnMut(Event<'_>),
    ) -> Option<Violation> {
        // What a panic leaves of the target is thrown away; what it leaves of this run is reset by the next.
        let run = AssertUnwindSafe(|| self.lockstep(mmu, program, &mut show));
        match catch_unwind(run) {
            Ok(violation) => violation,
            Err(payload) => {
                let text = payload.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
                let kind = program.ops.get(self.at).map(Op::kind);
                let signature = Signature::new("panic", "panic", kind, &self.model, None);
                Some(Violation { signature, at: self.at, why: format!("the target panicked: {text}") })
            }
        }
    }

    fn lockstep<M: Mmu>(
        &mut self,
        mmu: &mut M,
        program: &Program,
        show: &mut dyn FnMut(Event<'_>),
    ) -> Option<Violation> {
        self.reset(mmu, &program.vm);
        let capabilities = mmu.capabilities();
        let possible = mmu.supports_vm(&program.vm);
        for (at, op) in program.ops.iter().enumerate() {
            self.at = at;
            if !possible || !mmu.supports(op) {
                self.counts.unsupported += 1;
                show(Event::Unsupported(at, op));
                continue;
            }
            if !self.model.accepts(&self.host, op) {
                self.counts.skipped += 1;
                show(Event::Skipped(at, op));
                continue;
            }
            self.counts.judged += 1;
            let violation = self.step(mmu, at, op, capabilities, show);
            if violation.is_some() {
                return violation;
            }
        }
        self.at = program.ops.len();
        self.finish(mmu, capabilities)
    }

    fn reset<M: Mmu>(&mut self, mmu: &mut M, vm: &VmConfig) {
        self.model = Model::new(vm);
        self.host.reset(vm);
        self.backend = vm.backend();
        self.view.reset(vm);
        self.features.reset();
        self.last_exit = None;
        for oracle in &mut self.oracles {
            oracle.reset();
        }
        mmu.reset(vm);
    }

    fn step<M: Mmu>(
        &mut self,
        mmu: &mut M,
        at: usize,
        op: &Op,
        capabilities: Capabilities,
        show: &mut dyn FnMut(Event<'_>),
    ) -> Option<Violation> {
        if let Op::Backend(mode) = op {
            self.backend = *mode;
        }
        let accessed = match *op {
            Op::Access { gpa, access, .. } | Op::FaultBegin { gpa, access, .. } => Some((gpa, access)),
            Op::WriteGpte { gpa, .. } => Some((gpa, Access::Write)),
            Op::Prefault { gpa, .. } => Some((self.model.prefaulted(gpa), Access::Read)),
            Op::FaultEnd { vcpu } => self.model.pending_fault(vcpu),
            _ => None,
        };
        self.host.apply(op);
        self.flush.begin_op(self.backend);
        let allowed = self.model.expect(&self.host, op);
        let exit = mmu.step(&self.host, &mut self.flush, op);
        self.last_exit = Some(exit);
        self.host.settle(op, &exit);
        self.model.observe(&self.host, op, &exit);
        if capabilities.tables {
            self.view.sweep(self.model.vm(), mmu);
            self.model.writable_seen(self.view.writable_any(), self.view.newly_writable());
        }
        let step = Step {
            at,
            op,
            accessed: accessed.map(|(gpa, _)| gpa),
            access: accessed.map(|(_, access)| access),
            exit,
            allowed: &allowed,
            model: &self.model,
            host: &self.host,
            flushes: self.flush.log(),
            events: self.flush.events(),
            samples: self.flush.samples(),
            view: &self.view,
            warning: mmu.warning(),
            capabilities,
        };
        self.features.note(&step);
        let mut violation = self.alarm(mmu, at, Some(op.kind()));
        // What the target itself says is wrong explains what an oracle would say.
        let asked = if violation.is_some() { 0 } else { self.oracles.len() };
        for (oracle, tally) in self.oracles[..asked].iter_mut().zip(&mut self.tallies) {
            if let Err(objection) = oracle.check(&step, tally) {
                let clause = oracle.clauses()[objection.clause].name;
                let signature = Signature::new(oracle.name(), clause, Some(op.kind()), &self.model, objection.blame);
                violation = Some(Violation { signature, at, why: objection.why });
                break;
            }
        }
        show(Event::Judged(&step, violation.as_ref()));
        violation
    }

    fn alarm<M: Mmu>(&self, mmu: &M, at: usize, op: Option<OpKind>) -> Option<Violation> {
        let alarm = mmu.alarm(op.is_none())?;
        let signature = Signature::new("kernel", alarm.clause, op, &self.model, None);
        Some(Violation { signature, at, why: alarm.text.clone() })
    }

    fn finish<M: Mmu>(&mut self, mmu: &M, capabilities: Capabilities) -> Option<Violation> {
        let alarm = self.alarm(mmu, self.at, None);
        if alarm.is_some() {
            return alarm;
        }
        self.keys.clear();
        if capabilities.keys {
            mmu.inspect(&mut |key| self.keys.push(key));
        }
        let end = End { model: &self.model, host: &self.host, view: &self.view, keys: &self.keys, capabilities };
        for (oracle, tally) in self.oracles.iter_mut().zip(&mut self.tallies) {
            if let Err(objection) = oracle.finish(&end, tally) {
                let clause = oracle.clauses()[objection.clause].name;
                let signature = Signature::new(oracle.name(), clause, None, &self.model, objection.blame);
                return Some(Violation { signature, at: self.at, why: objection.why });
            }
        }
        None
    }

    /// The feature cells of the last program.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// What the target answered to the last op of the last program that was carried out.
    pub fn last_exit(&self) -> Option<Exit> {
        self.last_exit
    }

    /// What became of all ops so far.
    pub fn counts(&self) -> OpCounts {
        self.counts
    }

    /// Each clause of each oracle with how often it was at stake so far.
    pub fn tallies(&self) -> impl Iterator<Item = (&'static str, &'static Clause, Tally)> {
        self.oracles.iter().zip(&self.tallies).flat_map(|(oracle, tallies)| {
            let clauses = oracle.clauses().iter().zip(tallies);
            clauses.map(move |(clause, tally)| (oracle.name(), clause, *tally))
        })
    }
}

impl std::fmt::Debug for Lockstep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lockstep").field("at", &self.at).field("counts", &self.counts).finish_non_exhaustive()
    }
}

#[expect(dead_code, reason = "a compile-time check: campaigns move a run to another thread")]
fn lockstep_is_send(run: Lockstep) -> impl Send {
    run
}
