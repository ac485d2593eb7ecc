//! Linux's own `kvm.ko`, unmodified, in a worker process, as an MMU that the oracles judge.
//!
//! This crate is the side that lives in the fuzzer, and nothing of the kernel is in it: the [`wire`] to a worker, the
//! [`Supervisor`] that starts one and survives whatever becomes of it, and [`Observed`], an [`Mmu`](gpa_model::Mmu) that answers from
//! what the worker saw. The kernel, the processor and the memory are in `kvm-ko-worker`.
//!
//! A program goes to the worker as a whole and comes back as a whole, like a trace: for each op how it ended, the flushes it took in
//! their order, what it changed in the tables under every name, and what the kernel objected to. If the worker dies, what it
//! wrote until then says at which op.

pub mod abilities;
pub mod alias_method;
pub mod compile;
pub mod observed;
pub mod prepare;
pub mod process;
pub mod serve;
pub mod supervisor;
pub mod wire;

pub use abilities::Abilities;
pub use alias_method::AliasMethod;
pub use observed::Observed;
pub use supervisor::{Supervisor, WorkerError};
