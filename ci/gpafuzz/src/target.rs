//! A [`Target`]: an implementation under test, ready to be judged, whatever its type.

mod in_process;
mod kvm;
mod kvm_ko;
mod linux_kvm;
pub mod registry;
mod silence;
mod traced;

pub use in_process::{InProcess, profile_of};

use ::linux_kvm::Function;
use gpa_model::generate::Profile;
use gpa_model::{Capabilities, Program};
use gpa_oracles::{Lockstep, Violation};
use std::fmt;

/// Something that programs can be run on and judged. Object safe, so that campaigns are written once.
pub trait Target {
    /// Run `program` and return the first violation.
    ///
    /// # Errors
    /// If the target itself cannot run any more: not a finding, the end of the campaign.
    fn judge(&mut self, run: &mut Lockstep, program: &Program) -> Result<Option<Violation>, TargetError>;

    /// The same, written down op by op. `name` is shown as the target's.
    ///
    /// # Errors
    /// As [`Target::judge`].
    fn report(
        &mut self,
        run: &mut Lockstep,
        program: &Program,
        name: &str,
    ) -> Result<(String, Option<Violation>), TargetError>;

    /// What programs for it are made of.
    fn profile(&self) -> Profile;

    /// What oracles can see of it.
    fn capabilities(&self) -> Capabilities;

    /// The only programs it can run, if it answers from a record.
    fn recorded(&self) -> Option<Vec<Program>> {
        None
    }

    /// Guest accesses carried out so far, if a real guest carries them out.
    fn accesses(&self) -> Option<u64> {
        None
    }

    /// How often a finding has to be seen again before it counts as stable. A race on real hardware may show now and then.
    fn confirmations(&self) -> u32 {
        1
    }

    /// Evidence that the accesses ran natively.
    fn evidence(&self) -> Option<String> {
        None
    }

    /// The blocks of its code that the last program executed, if they can be watched: numbers that mean the same at each run.
    fn blocks(&self) -> &[u32] {
        &[]
    }

    /// The functions that its blocks belong to, in the order of their blocks.
    ///
    /// # Errors
    /// As [`Target::judge`].
    fn functions(&mut self) -> Result<Vec<Function>, TargetError> {
        Ok(Vec::new())
    }

    /// Have `program` carried out and judge nothing, if another process carries it out: to see what judging costs.
    ///
    /// # Errors
    /// As [`Target::judge`].
    fn carry_out(&mut self, _program: &Program) -> Result<(), TargetError> {
        Ok(())
    }

    /// The process that carries programs out, if it is another.
    fn worker(&self) -> Option<u32> {
        None
    }

    /// Whether it survived the last violation. If it has to be restarted, which takes seconds, a campaign does not minimise the
    /// program.
    fn survived(&self) -> bool {
        true
    }

    /// The last program with what was observed, as a trace.
    ///
    /// # Errors
    /// Why there is none.
    fn trace(&self) -> Result<String, &'static str> {
        Err("not a real KVM, and so nothing to record")
    }

    /// The log of the target's own kernel, if it has one.
    fn log(&mut self) -> Option<String> {
        None
    }
}

/// A target that is ready to run.
pub struct Opened {
    /// The target.
    pub target: Box<dyn Target>,
    /// How it was opened, if there is a choice: live or recorded, and on what.
    pub note: Option<String>,
}

/// What a target did in the last program, as far as it can tell. If a race does not show again, this is all that is left of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunRecord {
    /// [`Target::trace`], if there is one.
    pub trace: Option<String>,
    /// [`Target::log`], if there is one.
    pub log: Option<String>,
    /// [`Target::survived`].
    pub survived: bool,
}

impl RunRecord {
    /// What `target` did.
    pub fn of(target: &mut dyn Target) -> Self {
        Self { trace: target.trace().ok(), log: target.log(), survived: target.survived() }
    }
}

/// Why there is no target, or no target any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetError {
    /// No target has this name.
    Unknown {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// This machine lacks what the target needs.
    Absent {
        /// The target.
        name: &'static str,
        /// What is missing and what to do.
        why: String,
    },
    /// It stopped working.
    Failed(String),
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name, known } => {
                write!(f, "unknown target: expected one of {}, found `{name}`", known.join(", "))
            }
            Self::Absent { name, why } => write!(f, "target {name} cannot be used here: {why}"),
            Self::Failed(why) => write!(f, "the target stopped working: {why}"),
        }
    }
}

impl std::error::Error for TargetError {}
