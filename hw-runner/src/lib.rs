//! Runs programs of GPA aliasing on the real `/dev/kvm`, records what it does as traces, and replays traces anywhere.
//!
//! [`Machine`] carries out a [`Program`](gpa_model::Program) and returns a [`Trace`]; [`Replay`] makes a trace a target that
//! the oracles can judge. So a run on hardware is always: record, then judge the recording. A trace that was written to a file
//! is judged the same on a machine without `/dev/kvm`.

pub mod cli;
pub mod error;
pub mod export;
mod guest;
mod host;
mod inside;
mod kvm;
pub mod machine;
pub mod trace;

pub use error::MachineError;
pub use guest::walker::{self, Walker};
pub use host::reclaim::{self, ReclaimCount, ReclaimTable};
pub use kvm::alias_method::AliasMethod;
pub use kvm::fingerprint::Fingerprint;
pub use kvm::mmu_debugfs::MmuEvent;
pub use kvm::witness::{COUNTERS, Witness};
pub use machine::{Machine, Proof, StressReport};
pub use trace::Trace;
pub use trace::exercised::Exercised;
pub use trace::replay::Replay;
pub use trace::support::{self, profile, supports};
