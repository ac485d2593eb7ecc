//! Runs programs of GPA aliasing on a real `/dev/kvm`, records what KVM does as traces, and replays traces anywhere.
//!
//! A run on hardware has two steps. [`Machine::run`] carries out a [`Program`](gpa_model::Program) and returns a [`Trace`].
//! [`Replay`] turns a trace into a target that the oracles judge. A trace that was written to a file is judged in the same
//! way on a machine without `/dev/kvm`.
//!
//! ```
//! use gpa_oracles::Lockstep;
//! use hw_runner::{Machine, Replay};
//!
//! let program = gpa_model::text::parse(
//!     "gpafuzz-program 1\n\
//!      vm stolen=40 vcpus=1 base=0x1e0 flush=works\n\
//!      slot 0 create gfn=0x1e0 pages=4 hva=0\n\
//!      v0 write 0x1e1@1\n\
//!      v0 read 0x1e1\n",
//! )?;
//! let mut machine = match Machine::open() {
//!     Ok(machine) => machine,
//!     Err(error) if error.is_absence() => return Ok(()), // no usable /dev/kvm
//!     Err(error) => return Err(error.into()),
//! };
//! let mut replay = Replay::default();
//! replay.load(machine.run(&program)?);
//! assert_eq!(Lockstep::default().run(&mut replay, &program), None); // no oracle objects
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Stock KVM has no aliases. An [`AliasMethod`] makes them from user space: for example, each name of a frame gets a memslot
//! over the same host pages. [`Machine`] also proves by KVM's counters ([`Witness`]) that guest accesses went through the MMU
//! under test, and not through an instruction emulator.
//!
//! Its rooms, from below; each uses only those before it: `error`, `host` (memory that guests use, and the ways to reclaim
//! it), `kvm` (the interface of KVM), `guest` (code, page tables, vCPUs), [`trace`], [`machine`] (the executor and stress),
//! [`export`], `inside` (the first process of a lab's machine), [`cli`].
//!
//! What this crate does not do: it does not judge (the oracles do), it does not generate programs ([`profile`] says which ones
//! KVM can carry out), and it does not see page tables or TLBs, except on the lab's kernels, which show them in debugfs.
//! Only x86-64 is supported.

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
