//! The registry of targets: their names, what they are, and how to open them.

pub use super::kvm_ko::ALL as WORKERS;
pub use super::linux_kvm::{ALL as LABS, STOLEN_FIXED as STOLEN_MUTANTS_OF};

use super::in_process::InProcess;
use super::{Opened, TargetError, kvm, kvm_ko, linux_kvm};
use gpa_model::Mmu;
use kvm_mmu::mutants;
use kvm_mmu::{Corrected, DirectMirror, EptNoAd, KvmMmu, Npt, RfcV3};

/// A target that can be asked for by name.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The name.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    open: fn() -> Result<Opened, TargetError>,
}

/// Every target, in the order in which a campaign takes them. Beside them each mutant of `kvm-mmu`, each of the [`WORKERS`] and [`LABS`] and,
/// with the feature `third-party`, each crate of another project can be named.
pub const ALL: [Entry; 6] = [
    Entry {
        name: "kvm-mmu",
        about: "the MMU in Rust with the corrected design",
        open: || Ok(in_process(KvmMmu::<Corrected>::default())),
    },
    Entry {
        name: "kvm-mmu-no-ad",
        about: "the same on a processor whose EPT has no accessed and dirty bits",
        open: || Ok(in_process(KvmMmu::<Corrected, EptNoAd>::default())),
    },
    Entry {
        name: "kvm-mmu-npt",
        about: "the same with nested page tables: entries of long mode",
        open: || Ok(in_process(KvmMmu::<Corrected, Npt>::default())),
    },
    Entry {
        name: "tdp-mmu",
        about: "upstream's design: a direct and a mirrored root, and no rmap",
        open: || Ok(in_process(KvmMmu::<DirectMirror>::default())),
    },
    Entry {
        name: "rfc-v3",
        about: "the same MMU with the decisions of the patches as posted",
        open: || Ok(in_process(KvmMmu::<RfcV3>::default())),
    },
    Entry { name: kvm::NAME, about: "this host's /dev/kvm, or else traces recorded on one", open: kvm::open },
];

/// The target of a program that names none.
pub const DEFAULT: &str = "kvm-mmu";

/// All crates of other projects together, in a campaign.
#[cfg(feature = "third-party")]
pub const THIRD_PARTY: &str = "third-party";

/// What stands before the name of a mutant.
pub const MUTANT: &str = "mutant:";

fn in_process(mmu: impl Mmu + 'static) -> Opened {
    Opened { target: Box::new(InProcess::new(mmu)), note: None }
}

/// The target called `name`.
///
/// # Errors
/// [`TargetError::Unknown`] or [`TargetError::Absent`].
pub fn open(name: &str) -> Result<Opened, TargetError> {
    if let Some(mutant) = name.strip_prefix(MUTANT) {
        let known = || mutants::ALL.iter().map(|mutant| format!("{MUTANT}{}", mutant.name)).collect();
        let found = mutants::named(mutant).map(|mutant| in_process(mutant.mmu()));
        return found.ok_or_else(|| TargetError::Unknown { name: name.into(), known: known() });
    }
    if let Some(lab) = linux_kvm::open(name, true) {
        return lab;
    }
    if let Some(worker) = kvm_ko::open(name) {
        return worker;
    }
    if let Some(alias_method) = name.strip_prefix(kvm::LIVE) {
        return kvm::open_live(alias_method);
    }
    #[cfg(feature = "third-party")]
    if let Some(adapter) = third_party::ALL.iter().find(|adapter| adapter.name == name) {
        return Ok(in_process((adapter.open)()));
    }
    match ALL.iter().find(|entry| entry.name == name) {
        Some(entry) => (entry.open)(),
        None => {
            let names = ALL.iter().map(|entry| entry.name).chain(with_kernels());
            #[cfg(feature = "third-party")]
            let names = names.chain(third_party::ALL.iter().map(|adapter| adapter.name));
            let known = names.map(str::to_owned).chain([format!("{MUTANT}NAME")]);
            Err(TargetError::Unknown { name: name.into(), known: known.collect() })
        }
    }
}

/// The names of the targets that have a kernel of their own.
fn with_kernels() -> impl Iterator<Item = &'static str> {
    WORKERS.iter().map(|worker| worker.name).chain(LABS.iter().map(|lab| lab.name))
}

/// The name of target `name`, which has a kernel of its own, with another than the usual one: a version of Debian's, or a folder.
///
/// # Errors
/// [`TargetError::Unknown`] if no such target has this name.
pub fn with_kernel(name: &str, kernel: &str) -> Result<String, TargetError> {
    let named = kvm_ko::with_kernel(name, kernel).or_else(|| linux_kvm::with_kernel(name, kernel));
    let known = || with_kernels().map(str::to_owned).collect();
    named.ok_or_else(|| TargetError::Unknown { name: name.into(), known: known() })
}

/// The target called `name` without coverage, if it has coverage: to see what coverage costs.
pub fn open_unwatched(name: &str) -> Option<Result<Opened, TargetError>> {
    linux_kvm::open(name, false)
}

/// The names of the targets that a campaign on `name` is made of.
pub fn expand(name: &str) -> Vec<String> {
    #[cfg(feature = "third-party")]
    if name == THIRD_PARTY {
        return third_party::ALL.map(|adapter| adapter.name.to_owned()).to_vec();
    }
    if name == kvm::NAME { kvm::expand() } else { vec![name.to_owned()] }
}

/// A recorded trace as a target: it answers its own program and no other. Its name is `kvm`.
pub fn of_trace(trace: hw_runner::Trace) -> (&'static str, Opened) {
    (kvm::NAME, kvm::recorded(trace))
}
