//! The words of GPA aliasing, programs made of them, and a reference model of what a guest is entitled to.
//!
//! A GPA that differs only in stolen bits names the same frame. Memslots and the dirty log know [`Gfn`]s, which never carry
//! stolen bits; hardware, SPTEs and TLBs know [`Gpa`]s, which do. [`Model`] says what each access may find; whoever
//! implements [`Mmu`] can be judged against it with the `gpa-oracles` crate.
//!
//! What is absent on purpose: no clock, no randomness but what a caller passes in, no hash map that is iterated, no I/O.

pub mod addr;
pub mod allowed;
pub mod async_pf;
pub mod choices;
pub mod exhaust;
pub mod flush;
pub mod generate;
pub mod guest_access;
pub mod guest_paging;
pub mod guest_walk;
pub mod host;
pub mod limits;
pub mod memory_attributes;
pub mod minimize;
pub mod mmu;
pub mod model;
pub mod op;
pub mod op_kinds;
pub mod pins;
pub mod program;
pub mod reclaim;
pub mod text;
pub mod vm;

pub use addr::{Alias, Gfn, Gpa, HostPage, Level, Pfn, Span, StolenMask};
pub use allowed::Allowed;
pub use flush::{BackendMode, Flush, FlushBackend, VcpuSet};
pub use guest_paging::{Gpte, GpteFlags, GuestPaging, Gva};
pub use guest_walk::GuestWalk;
pub use host::Host;
pub use memory_attributes::{MemoryAttributes, MemoryType};
pub use mmu::{Capabilities, Exit, Fault, GfnIndexed, Mmu, Rights, Spte};
pub use model::{Entitled, Model, SlotKind};
pub use op::{Access, HostPageRange, Op, OpKind, SlotChange, SlotFlags, SlotId};
pub use op_kinds::OpKinds;
pub use program::Program;
pub use reclaim::{Reclaim, ReclaimSet};
pub use vm::{FrameSet, Levels, Logging, VmConfig};
