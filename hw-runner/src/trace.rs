//! Traces: a program and what was observed when it ran, as text that is recorded once and judged anywhere.
//!
//! ```text
//! gpafuzz-trace 1
//! module kvm_pvm
//! paging shadow
//! maxphyaddr 48
//! capabilities binary-stats manual-dirty-log-protect2 readonly-mem
//! native yes
//! # A write through the alias is in the log of its gfn.
//! vm stolen=40 vcpus=2 base=0x1e0 flush=works
//! slot 0 create gfn=0x1e0 pages=4 hva=0 log-dirty
//!   => done
//! v0 write 0x1e1@1
//!   => memory 2
//! dirty-get 0
//!   => dirty 0x1e1
//! ```
//!
//! After the header comes the program, as [`gpa_model::text`] has it, with an observation below each op that was carried out.
//! An op without one meant nothing in its state, or could not be carried out. Pages are named by the identities of
//! [`gpa_model::Host`], never by anything of the machine that recorded.

mod parse;
mod print;

pub use parse::parse;
pub use print::{print, print_observation};

use crate::fingerprint::Fingerprint;
use crate::support::supports;
use gpa_model::{Exit, Host, Model, Program};

/// The format version this crate writes, and the newest it reads.
pub const VERSION: u32 = 1;
/// The word that opens a trace.
pub const MAGIC: &str = "gpafuzz-trace";
/// The word before an observation.
const ARROW: &str = "=>";

/// A program and what was observed.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Trace {
    /// Where it was recorded.
    pub fingerprint: Fingerprint,
    /// What was carried out.
    pub program: Program,
    /// One for each op; `None` if it was not carried out.
    pub observations: Vec<Option<Exit>>,
}

impl Trace {
    /// The observation of op number `at`.
    pub fn observation(&self, at: usize) -> Option<Exit> {
        self.observations.get(at).copied().flatten()
    }

    /// The first op that had to be carried out and has no observation. Such a trace is cut short: what comes after cannot be
    /// judged. `None` if the trace is whole.
    pub fn missing(&self) -> Option<usize> {
        let (mut host, mut model) = (Host::default(), Model::new(&self.program.vm));
        for (at, op) in self.program.ops.iter().enumerate() {
            if supports(&self.program.vm, op) && model.accepts(&host, op) {
                let Some(exit) = self.observation(at) else { return Some(at) };
                host.apply(op);
                model.step(&host, op, &exit);
            }
        }
        None
    }
}
