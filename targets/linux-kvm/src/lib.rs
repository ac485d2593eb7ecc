//! The lab: Linux's own KVM, with a real MMU over real nested page tables, on any machine and without privileges.
//!
//! QEMU's software CPU emulates AMD's SVM with nested paging, so a stock distribution kernel that boots in it offers a real
//! `/dev/kvm`. The lab takes such a kernel, Debian's or a developer's own, from [`kernels`], packs it with the
//! runner of the workspace as its first process as an image, boots it, and from then on programs go in and traces
//! come out of one serial port ([`Lab::ask`]). It is booted once for any number of programs, and its state is kept, from which
//! the next lab goes on within a second. Bochs, far slower, emulates Intel's
//! VMX with EPT in the same way.
//!
//! What is absent on purpose: a network, a disk, a shell, anything installed into the system, and any knowledge of programs and
//! traces, which are text to this crate.

mod emulator;
mod host;
mod image;
mod lab;
mod machine;

pub use emulator::{Emulator, coverage};
pub use image::parts;
pub use lab::{Answer, Function, Lab};
pub use machine::console::{self, Complaint};

use kernels::{Choice, stolen};

/// A kernel and how its KVM is set up: what a lab boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Which kernel.
    pub kernel: Choice,
    /// What it is booted in.
    pub emulator: Emulator,
    /// A parameter for a module, as `kvm`, `tdp_mmu=0`.
    pub parameters: Vec<(&'static str, String)>,
    /// How the runner inside is to make aliases, in its words; as it usually does if none is given.
    pub alias_method: Option<String>,
    /// Whether its KVM is built with stolen GPA bits, after which design, and with which mutant.
    pub stolen: Option<(stolen::Design, Option<&'static stolen::Mutant>)>,
    /// Whether the blocks of KVM that are executed are to be seen, which takes time.
    pub watched: bool,
}
