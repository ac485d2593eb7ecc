//! The guest: a few machine instructions that carry out a list of accesses, and the page tables they run under.
//!
//! The guest runs at CPL 3 with IOPL 3, because some hypervisors emulate ring 0 instruction by instruction and then no
//! translation of theirs is at stake. It has no IDT: an exception ends in a shutdown exit, which is an answer too.
//!
//! Guest physical memory of its own, where no frames of programs may be:
//!
//! ```text
//! OWN_GFN    code | TSS | one stack page for each vCPU | request pages of vCPU 0, 1, … | the guest that spins
//! TABLE_GFN  root A | root B | pointer table | directory | leaf table of OWN_GFN | leaf tables of the windows | see names
//! ```
//!
//! Each of the two is a huge page, wherever the host has one to give: when KVM has dropped its tables, as it does with each memslot
//! that goes, two faults bring all of it back.
//!
//! One leaf table holds every name of every frame of one VM: [`ALIASES`] × [`FRAMES`] entries. The next VM gets the next table
//! and with it other linear addresses, for which nothing is cached yet. Two roots with the same content let CR3 change when all
//! tables are used up and written anew, so that no translation of an earlier program survives in a TLB.

pub(crate) mod code;
pub(crate) mod layout;
pub(crate) mod mode;
pub(crate) mod names;
pub(crate) mod page;
pub(crate) mod spinner;
pub(crate) mod tables;
pub(crate) mod vcpu;
pub mod walker;
