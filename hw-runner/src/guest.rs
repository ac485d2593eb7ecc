//! The guest: machine code that carries out a list of accesses, and the page tables that it runs under.
//!
//! The guest runs at CPL 3 with IOPL 3, because some hypervisors emulate ring 0 instruction by instruction, which would not
//! test their translations. It has no IDT: an exception ends in a shutdown exit, which is a result, too.
//!
//! The guest's own memory lies where programs have no frames:
//!
//! ```text
//! OWN_GFN    code | TSS | one stack page for each vCPU | request pages of vCPU 0, 1, … | the guest that spins
//! TABLE_GFN  root A | root B | pointer table | directory | leaf table of OWN_GFN | leaf tables of the windows | see names
//! ```
//!
//! Each of the two is a huge page if the host has one. KVM drops its mappings with each memslot that goes, and two faults
//! then bring all of them back.
//!
//! One leaf table, a window, maps every name of every frame of one VM. The next VM gets the next window, and with it linear
//! addresses for which nothing is cached yet. When all windows are used they are written anew, and CR3 changes to the
//! other root, so that no translation of an earlier program survives in a TLB.

pub(crate) mod assembly;
pub(crate) mod layout;
pub(crate) mod mode;
pub(crate) mod names;
pub(crate) mod page;
pub(crate) mod requests;
pub(crate) mod spinner;
pub(crate) mod tables;
pub(crate) mod vcpu;
pub mod walker;
