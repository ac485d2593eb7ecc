//! The words of GPA aliasing, programs made of them, and a reference model of what a guest is entitled to.
//!
//! A GPA that differs only in stolen bits names the same frame. Memslots and the dirty log know [`Gfn`]s, which never carry
//! stolen bits; hardware, SPTEs and TLBs know [`Gpa`]s, which do. [`Model`] says what each access may find; whoever
//! implements [`Mmu`] can be judged against it with the `gpa-oracles` crate.
//!
//! What is absent on purpose: no clock, no randomness but what a caller passes in, no hash map that is iterated, no I/O.

pub mod addr;
mod explore;
mod frame_set;
mod host;
pub mod limits;
mod mmu;
mod program;
mod reference;
mod variants;

pub use addr::{Alias, Gfn, Gpa, HostPage, Level, Pfn, Span, StolenBitError, StolenMask};
pub use explore::{choices, exhaust, generate, minimize};
pub use frame_set::FrameSet;
pub use host::{Host, Pins};
pub use mmu::{
    Alarm, Capabilities, Exit, Fault, Flush, FlushBackend, GfnIndexed, Mmu, RangeFlushFailed, Sample, Spte, TlbEvent,
    VcpuSet,
};
pub use program::{
    Access, Aliasing, BackendMode, Gpte, GpteFlags, GuestPaging, Gva, HostPageRange, Levels, Logging, MemoryType, Op,
    OpKind, OpKinds, Program, ProgramError, Reclaim, ReclaimSet, Rights, SlotChange, SlotFlags, SlotId, VmConfig,
    VmError, VmOption, check_op, text,
};
pub use reference::{Allowed, Entitled, GuestWalk, MemoryAttributes, Model, SlotKind};
