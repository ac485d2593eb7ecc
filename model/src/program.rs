//! What a program is made of: a VM configuration, and ops with their operands. Its text form is in [`text`].

mod access;
mod aliasing;
mod backend;
mod check;
mod gpte;
mod gpte_format;
mod guest_paging;
mod gva;
mod host_range;
mod memory_type;
mod op;
mod op_kind;
mod reclaim;
mod slot;
pub mod text;
mod vm;
mod vm_error;
mod vm_option;

pub use access::{Access, Rights};
pub use aliasing::Aliasing;
pub use backend::BackendMode;
pub use check::{ProgramError, check_op};
pub use gpte::{Gpte, GpteFlags};
pub use guest_paging::GuestPaging;
pub use gva::Gva;
pub use host_range::HostPageRange;
pub use memory_type::MemoryType;
pub use op::Op;
pub use op_kind::{OpKind, OpKinds};
pub use reclaim::{Reclaim, ReclaimSet};
pub use slot::{SlotChange, SlotFlags, SlotId};
pub use vm::{Levels, Logging, VmConfig};
pub use vm_error::VmError;
pub use vm_option::VmOption;

/// A VM and what is done to it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Program {
    /// The VM.
    pub vm: VmConfig,
    /// The ops, at most [`OPS`](crate::limits::OPS).
    pub ops: Vec<Op>,
    /// What the program shows: the comment at the head of its file, a line each, without the `#`.
    pub comment: Vec<String>,
}
