//! Runs programs of GPA aliasing on the real `/dev/kvm`, records what it does as traces, and replays traces anywhere.
//!
//! [`Machine`] carries out a [`Program`](gpa_model::Program) and returns a [`Trace`]; [`Replay`] makes a trace a target that
//! the oracles can judge. So a run on hardware is always: record, then judge the recording. A trace that was written to a file
//! is judged the same on a machine without `/dev/kvm`.

mod address_space;
pub mod alias_method;
pub mod cli;
pub mod error;
pub mod exercised;
pub mod explain;
pub mod export;
pub mod fingerprint;
mod guest;
mod guest_memfd;
mod init;
mod ioctl;
mod ioeventfd;
pub mod machine;
mod memory;
mod memslots;
pub mod mmu_debugfs;
pub mod reclaim;
pub mod replay;
mod ring;
pub mod serve;
mod slot_window;
mod spinner;
mod stats;
mod stolen;
pub mod support;
pub mod trace;
mod userfault;
mod vcpu;
pub mod walker;
mod watchdog;
pub mod witness;

pub use alias_method::AliasMethod;
pub use error::MachineError;
pub use exercised::Exercised;
pub use fingerprint::Fingerprint;
pub use machine::{Machine, Proof, StressReport};
pub use mmu_debugfs::MmuEvent;
pub use reclaim::{ReclaimCount, ReclaimTable};
pub use replay::Replay;
pub use support::{profile, supports};
pub use trace::Trace;
pub use walker::Walker;
pub use witness::Witness;
