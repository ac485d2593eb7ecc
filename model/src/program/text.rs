//! Programs as text: one op a line, versioned, made to be read, edited and diffed by people.
//!
//! ```text
//! gpafuzz-program 1
//! # A write through the alias, after the log was cleared through the base.
//! vm stolen=40 vcpus=2 base=0x1e0 flush=works
//! slot 0 create gfn=0x1e0 pages=4 hva=0 log-dirty
//! v0 write 0x1e1@1
//! dirty-clear 0 gfn=0x1e0 pages=4
//! v1 write 0x1e1@1
//! dirty-get 0
//! ```
//!
//! `0x1e1@1` is gfn 0x1e1 under alias 1: bit *i* of the alias number stands for the *i*-th stolen bit, so a program means
//! the same wherever the stolen bits are. After `flush=` a VM may have `stride=64`, which puts its frames and host pages 64 pages
//! apart (see [`VmConfig`](crate::VmConfig)), `levels=5`, `maxphyaddr=46`, `log=pml`, `paging=pae`, `nx-huge-pages=on`,
//! `slot-zap-all=on`, `dirty-ring=8`, `async-pf=on` and `aliasing=shared-private`, in this order.
//! `unmap hva=2 pages=1 by=fork` names the [`Reclaim`](crate::Reclaim) that real KVM is driven by; elsewhere it changes nothing,
//! but for `by=punch-hole` in a VM with a shared bit: that takes private pages away ([`Aliasing`](crate::Aliasing)).
//! `zap-begin gfn=0x1e0 pages=4 yield=2` stops after two leaves; the ops up to `zap-end` are what happens before it goes on.
//! Numbers are decimal, or hexadecimal after `0x`. `#` starts a comment; the comment lines right after the version are kept. Every
//! op has its own line in `print`; the parser accepts what it prints.
//!
//! The guest's own page tables are made of entries that it writes, and walked from a root, in the mode that `paging=` names
//! (4-level if it is left out). A guest virtual address is given as the index of its entry at each level, the root's first:
//!
//! ```text
//! v0 write-gpte 0x1e0@1 index=3 gpa=0x1e0 present writable user
//! v0 guest-walk read root=0x1e0@1 gva=3.3.3.3
//! v0 guest-access write root=0x1e0@1 gva=3.3.3.3
//! v0 guest-flush
//! ```
//!
//! The first of the last three is a walk by software; with the second a program goes there by tables that the hypervisor made of the
//! guest's; with the third the guest empties its TLB, so that what it changed counts.

mod op_line;
mod operands;
mod parse;
mod print;
mod vm_line;
mod words;

pub use op_line::parse_op_words;
pub use parse::parse;
pub use print::{print, print_gpa, print_op};
pub use words::{ParseError, Words};

/// The format version this crate writes, and the newest it reads.
pub const VERSION: u32 = 1;
/// The word that opens a program.
pub const MAGIC: &str = "gpafuzz-program";
