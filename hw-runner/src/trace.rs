//! Traces: a program with what was observed when it ran. A trace is text: recorded once, judged anywhere.
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
//! After the header comes the program, in the format of [`gpa_model::text`]. Below each op that was carried out is a line with
//! `=>` and the observation. An op without one has no meaning in its state, or could not be carried out. If the program ran
//! several times, lines with `~>` say how often another observation was made. Pages are named by the identities of
//! [`gpa_model::Host`], never by addresses of the host that recorded the trace. `realisation` is the alias method.
//!
//! On a kernel that shows its MMU in debugfs ([`MmuEvent`]), the trace has version 3. Lines with `::` list the flushes and the
//! changed SPTEs of an op; those below the last op also list the entries indexed by gfn. Without such a line nothing changed.
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
//! Version 1 has a shorter header, without `cpu`, `kernel`, `parameters`, `realisation`, `witness` and `samples`. A trace is
//! written in the oldest version that can express it, so that older runners can read it.

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

/// The newest version of the format, which this crate reads and writes.
pub const VERSION: u32 = 3;
/// The first version with the whole header.
const LONG_HEADER: u32 = 2;
/// The first version with MMU events.
const WATCHED: u32 = 3;
/// The first word of a trace.
pub const MAGIC: &str = "gpafuzz-trace";
/// The word before an observation.
const ARROW: &str = "=>";
/// The word before another observation of the same op.
const OTHER: &str = "~>";
/// The word before an MMU event.
const INSIDE: &str = "::";

/// A program and what was observed.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Trace {
    /// The KVM that recorded it.
    pub fingerprint: Fingerprint,
    /// The program.
    pub program: Program,
    /// The observation of each op; `None` if the op was not carried out.
    pub observations: Vec<Option<Exit>>,
    /// The MMU events of each op; empty if the kernel shows none.
    pub seen: Vec<Vec<MmuEvent>>,
    /// How often the program was run.
    pub samples: u32,
    /// Other observations in some of these runs, ordered by op.
    pub variants: Vec<Variant>,
}

/// An observation that some runs made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// The number of the op.
    pub at: usize,
    /// How many runs made it.
    pub times: u32,
    /// What was observed.
    pub exit: Exit,
}

impl Trace {
    /// Adds another run of the same program. Where it observed something else, that is a variant.
    ///
    /// # Panics
    /// If `other` has another number of observations.
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

    /// The first op that should have an observation and has none: the trace is cut short, and later ops cannot
    /// be judged. `None` if the trace is complete.
    pub fn missing(&self) -> Option<usize> {
        let (mut host, mut model) = (Host::new(&self.program.vm), Model::new(&self.program.vm));
        for (at, op) in self.program.ops.iter().enumerate() {
            if supports(&self.program.vm, op, self.fingerprint.alias_method) && model.accepts(&host, op) {
                let Some(exit) = self.observation(at) else { return Some(at) };
                // An unsupported op changes nothing.
                if exit != Exit::Unsupported {
                    host.apply(op);
                    model.step(&host, op, &exit);
                }
            }
        }
        None
    }
}
