//! The list of targets: what each is called, what it is, and how to get one.

mod kvm;

use crate::target::{InProcess, Target, TargetError};
use kvm_mmu::{Corrected, KvmMmu, RfcV3};

/// A target that can be asked for by name.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The name.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    open: fn() -> Result<Opened, TargetError>,
}

/// A target, and what is to be said about how it came to be.
pub struct Opened {
    /// The target.
    pub target: Box<dyn Target>,
    /// Which of several ways was taken, if there are several.
    pub note: Option<String>,
}

/// Every target, in the order in which a campaign takes them.
pub const ALL: [Entry; 3] = [
    Entry {
        name: "kvm-mmu",
        about: "the MMU in Rust, with the corrected design",
        open: in_process::<KvmMmu<Corrected>>,
    },
    Entry {
        name: "rfc-v3",
        about: "the same MMU with the decisions of the patches as posted",
        open: in_process::<KvmMmu<RfcV3>>,
    },
    Entry { name: "kvm", about: "this host's /dev/kvm, or traces recorded on one", open: kvm::open },
];

/// The target that a program without a target of its own is meant for.
pub const DEFAULT: &str = "kvm-mmu";

fn in_process<M: gpa_model::Mmu + 'static>() -> Result<Opened, TargetError> {
    Ok(Opened { target: Box::new(InProcess::<M>::default()), note: None })
}

/// The target called `name`.
///
/// # Errors
/// [`TargetError::Unknown`] or [`TargetError::Absent`].
pub fn open(name: &str) -> Result<Opened, TargetError> {
    match ALL.iter().find(|entry| entry.name == name) {
        Some(entry) => (entry.open)(),
        None => Err(TargetError::Unknown { name: name.into(), known: names() }),
    }
}

/// Check that there is a target called `name`, without opening it.
///
/// # Errors
/// [`TargetError::Unknown`].
pub fn check_name(name: &str) -> Result<(), TargetError> {
    if names().iter().any(|known| known == name) {
        return Ok(());
    }
    Err(TargetError::Unknown { name: name.into(), known: names() })
}

/// Every name that [`open`] takes.
pub fn names() -> Vec<String> {
    ALL.iter().map(|entry| entry.name.to_owned()).collect()
}
