//! Traces: a program and what was observed when it ran, as text that is recorded once and judged anywhere.
//!
//! ```text
//! gpafuzz-trace 2
//! cpu GenuineIntel
//! kernel 6.18.44
//! module kvm_pvm
//! parameters
//! paging shadow
//! maxphyaddr 48
//! capabilities binary-stats manual-dirty-log-protect2 readonly-mem
//! realisation slots
//! native yes
//! witness accesses=255 exits=1 insn_emulation=1 pf_taken=19 pf_fixed=19 pages_4k=131
//! samples 10
//! # A write through the alias is in the log of its gfn.
//! vm stolen=40 vcpus=2 base=0x1e0 flush=works
//! slot 0 create gfn=0x1e0 pages=4 hva=0 log-dirty
//!   => done
//! v0 write 0x1e1@1
//!   => memory 2
//! dirty-get 0
//!   => dirty 0x1e1
//!   ~> 3 dirty 0x1e1 0x1e2
//! ```
//!
//! Where KVM can be looked into ([`crate::kvm::mmu_debugfs`]), the trace is of version 3: lines with `::` say what an op changed in its tables and
//! which flushes it took, and below the last op that was carried out what is kept by gfn. Where there is no such line, nothing changed.
//!
//! ```text
//! dirty-clear 0 gfn=0x1e0 pages=4
//!   => done
//!   :: flush 0x1e0 4
//!   :: flush 0x100001e0 4 failed
//!   :: flush all
//!   :: spte 0x1e1@1 2 r-x 4K
//!   :: page 0x200 0x10000000 1
//!   :: rmap 0x1e1 0x100001e1 4K
//! ```
//!
//! After the header comes the program, as [`gpa_model::text`] has it, with an observation below each op that was carried out.
//! An op without one meant nothing in its state, or could not be carried out. If the program was run several times, a line with
//! `~>` says how often something else was observed than the line above. Pages are named by the identities of
//! [`gpa_model::Host`], never by anything of the machine that recorded. Version 1 has a shorter header: no `cpu`, `kernel`,
//! `parameters`, `realisation`, `witness` and `samples`. A trace is written as the oldest version that can say it, so that older
//! runners go on reading what they can judge.

pub mod exercised;
pub mod explain;
mod mmu_event;
mod parse;
mod print;
pub mod replay;
pub mod support;

pub use parse::parse;
pub use print::{print, print_observation};

use crate::kvm::fingerprint::Fingerprint;
use crate::kvm::mmu_debugfs::MmuEvent;
use crate::trace::support::supports;
use gpa_model::{Exit, Host, Model, Program};

/// The newest format version this crate writes and reads.
pub const VERSION: u32 = 3;
/// The first version with all of the header.
const LONG_HEADER: u32 = 2;
/// The first version that says what was seen inside KVM.
const WATCHED: u32 = 3;
/// The word that opens a trace.
pub const MAGIC: &str = "gpafuzz-trace";
/// The word before an observation.
const ARROW: &str = "=>";
/// The word before another that was made instead.
const OTHER: &str = "~>";
/// The word before something that was seen inside KVM.
const INSIDE: &str = "::";

/// A program and what was observed.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Trace {
    /// Where it was recorded.
    pub fingerprint: Fingerprint,
    /// What was carried out.
    pub program: Program,
    /// One for each op; `None` if it was not carried out.
    pub observations: Vec<Option<Exit>>,
    /// What was seen inside KVM, a list for each op; empty where it shows nothing.
    pub seen: Vec<Vec<MmuEvent>>,
    /// How often the program was run.
    pub samples: u32,
    /// What was observed instead in some of these runs, ordered by op.
    pub variants: Vec<Variant>,
}

/// An observation that was not always made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// The number of the op.
    pub at: usize,
    /// In how many of the runs.
    pub times: u32,
    /// What was observed.
    pub exit: Exit,
}

impl Trace {
    /// Add another run of the same program: what it observed otherwise is a variant.
    ///
    /// # Panics
    /// If `other` has not as many observations.
    pub fn add_sample(&mut self, other: &Trace) {
        assert_eq!(self.observations.len(), other.observations.len(), "samples of one program");
        self.samples += other.samples;
        for (at, (mine, other)) in self.observations.iter().zip(&other.observations).enumerate() {
            let Some(exit) = *other else { continue };
            if *mine == Some(exit) {
                continue;
            }
            let place = self.variants.partition_point(|variant| variant.at < at);
            match self.variants[place..].iter_mut().find(|variant| variant.at == at && variant.exit == exit) {
                Some(variant) => variant.times += 1,
                None => self.variants.insert(place, Variant { at, times: 1, exit }),
            }
        }
    }

    /// The observation of op number `at`.
    pub fn observation(&self, at: usize) -> Option<Exit> {
        self.observations.get(at).copied().flatten()
    }

    /// The first op that had to be carried out and has no observation. Such a trace is cut short: what comes after cannot be
    /// judged. `None` if the trace is whole.
    pub fn missing(&self) -> Option<usize> {
        let (mut host, mut model) = (Host::new(&self.program.vm), Model::new(&self.program.vm));
        for (at, op) in self.program.ops.iter().enumerate() {
            if supports(&self.program.vm, op, self.fingerprint.alias_method) && model.accepts(&host, op) {
                let Some(exit) = self.observation(at) else { return Some(at) };
                // What could not be carried out left everything as it was.
                if exit != Exit::Unsupported {
                    host.apply(op);
                    model.step(&host, op, &exit);
                }
            }
        }
        None
    }
}
