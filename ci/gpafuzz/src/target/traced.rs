//! Real KVM as a target: a program is recorded as a trace, and the trace is what the oracles see.
//!
//! Where the trace comes from is all that a live device, a record of one and the lab differ in: a [`Recorder`] says it.

use super::{Target, TargetError};
use gpa_model::generate::Profile;
use gpa_model::{Capabilities, Mmu, Program};
use gpa_oracles::{Lockstep, Violation};
use hw_runner::{Exercised, Replay, Trace};
use linux_kvm::Function;

/// Where traces come from.
pub(super) trait Recorder {
    /// Put the trace of `program` into `trace`, whose allocations may be used. A violation is one that no oracle can see, such as
    /// a kernel that warned; `trace` then holds what was observed before.
    fn record(&mut self, program: &Program, trace: &mut Trace) -> Result<Option<Violation>, TargetError>;

    /// The number of the op of `program` at which `complaint`, which [`Self::record`] has just returned for it, comes up; `None` if
    /// that cannot be found out.
    fn locate(&mut self, program: &Program, complaint: &Violation) -> Result<Option<usize>, TargetError> {
        let _ = (program, complaint);
        Ok(None)
    }

    /// As [`Target::profile`].
    fn profile(&self) -> Profile {
        hw_runner::profile()
    }

    /// Whether it is proven that guest accesses run natively.
    fn native(&self) -> bool;

    /// As [`Target::recorded`].
    fn recorded(&self) -> Option<Vec<Program>> {
        None
    }

    /// As [`Target::accesses`].
    fn accesses(&self) -> Option<u64> {
        None
    }

    /// As [`Target::evidence`].
    fn evidence(&self) -> Option<String> {
        None
    }

    /// As [`Target::blocks`].
    fn blocks(&self) -> &[u32] {
        &[]
    }

    /// As [`Target::functions`].
    fn functions(&mut self) -> Result<Vec<Function>, TargetError> {
        Ok(Vec::new())
    }

    /// As [`Target::survived`].
    fn survived(&self) -> bool {
        true
    }

    /// As [`Target::log`].
    fn log(&mut self) -> Option<String> {
        None
    }
}

/// How often a finding of a live guest is run again.
const HARDWARE_CONFIRMATIONS: u32 = 10;

/// A [`Recorder`] whose traces are judged.
pub(super) struct Traced<R> {
    recorder: R,
    replay: Replay,
    exercised: Exercised,
}

impl<R: Recorder> Traced<R> {
    pub(super) fn new(recorder: R) -> Self {
        Self { recorder, replay: Replay::default(), exercised: Exercised::default() }
    }

    fn load(&mut self, program: &Program) -> Result<Option<Violation>, TargetError> {
        let mut trace = self.replay.unload();
        let complaint = self.recorder.record(program, &mut trace)?;
        self.exercised.add(&trace);
        self.replay.load(trace);
        Ok(complaint)
    }
}

impl<R: Recorder> Target for Traced<R> {
    fn judge(&mut self, run: &mut Lockstep, program: &Program) -> Result<Option<Violation>, TargetError> {
        let complaint = self.load(program)?;
        // What the kernel itself says is wrong explains what an oracle would say.
        Ok(complaint.or_else(|| run.run(&mut self.replay, program)))
    }

    fn report(
        &mut self,
        run: &mut Lockstep,
        program: &Program,
        name: &str,
    ) -> Result<(String, Option<Violation>), TargetError> {
        let complaint = self.load(program)?;
        let (mut report, violation) = gpa_oracles::report(run, &mut self.replay, program, name);
        let Some(mut complaint) = complaint else { return Ok((report, violation)) };
        let log = self.recorder.log();
        if let Some(at) = self.recorder.locate(program, &complaint)? {
            gpa_oracles::mark_op(&mut report, at);
            complaint.at = at;
            complaint.why.push_str(&format!("; it comes up at op {}: the ops before it do not bring it up", at + 1));
        }
        report.push_str(&format!("{}\n{}\n", complaint.signature, complaint.why));
        if let Some(log) = log {
            report.push_str(&format!("\nthe kernel's log:\n{log}"));
        }
        Ok((report, Some(complaint)))
    }

    fn profile(&self) -> Profile {
        self.recorder.profile()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { native: self.recorder.native(), ..self.replay.capabilities() }
    }

    fn recorded(&self) -> Option<Vec<Program>> {
        self.recorder.recorded()
    }

    fn accesses(&self) -> Option<u64> {
        self.recorder.accesses()
    }

    fn confirmations(&self) -> u32 {
        if self.recorder.accesses().is_some() { HARDWARE_CONFIRMATIONS } else { 1 }
    }

    fn evidence(&self) -> Option<String> {
        Some(format!("{}\n  carried out: {}", self.recorder.evidence()?, self.exercised))
    }

    fn blocks(&self) -> &[u32] {
        self.recorder.blocks()
    }

    fn functions(&mut self) -> Result<Vec<Function>, TargetError> {
        self.recorder.functions()
    }

    fn survived(&self) -> bool {
        self.recorder.survived()
    }

    fn trace(&self) -> Result<String, &'static str> {
        match self.replay.trace() {
            // There was a complaint instead of an answer.
            Trace { samples: 0, .. } => Err("no answer, and so nothing to record"),
            trace => Ok(hw_runner::trace::print(trace)),
        }
    }

    fn log(&mut self) -> Option<String> {
        self.recorder.log()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpa_oracles::Signature;

    /// A guest that hangs over every program that does anything.
    struct Hangs;

    impl Recorder for Hangs {
        fn record(&mut self, program: &Program, trace: &mut Trace) -> Result<Option<Violation>, TargetError> {
            *trace = Trace { program: program.clone(), ..Trace::default() };
            if program.ops.is_empty() {
                trace.samples = 1;
                return Ok(None);
            }
            let signature = Signature { oracle: "guest", clause: "hung", op: "end", alias: "none", slot: "none" };
            Ok(Some(Violation { signature, at: 1, why: "it hung".into() }))
        }

        fn native(&self) -> bool {
            true
        }
    }

    #[test]
    fn what_was_not_answered_is_no_trace() {
        let mut target = Traced::new(Hangs);
        let head = "gpafuzz-program 1\nvm stolen=40 vcpus=1 base=0x1e0 flush=works\n";
        for (ops, answered) in [("", true), ("v0 read 0x1e0\n", false), ("age hva=0 pages=1\n", false)] {
            let program = gpa_model::text::parse(&format!("{head}{ops}")).expect("a program");
            target.report(&mut Lockstep::default(), &program, "it").expect("a report");
            assert_eq!(target.trace().is_ok(), answered, "{ops}");
        }
    }
}
