//! The functions of the compiled part that are called by name.

use super::load::{LoadError, absent};
use crate::loader::Symbols;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Age,
    Close,
    FlushOwed,
    Invalidate,
    Ioctl,
    PageOfTable,
    Pages,
    RecoverHugePages,
    Rmap,
    RunWorks,
    Slot,
    SvmTags,
    Track,
    TrackVm,
    Vcpu,
    VmxTags,
    WriteGuest,
    WriteProtect,
    ZapRange,
}

/// Their names, in the same order.
const NAMES: [&str; 19] = [
    "worker_age",
    "worker_close",
    "worker_flush_owed",
    "worker_invalidate",
    "worker_ioctl",
    "worker_page_of_table",
    "worker_pages",
    "worker_recover_huge_pages",
    "worker_rmap",
    "worker_run_works",
    "worker_slot",
    "worker_svm_tags",
    "worker_track",
    "worker_track_vm",
    "worker_vcpu",
    "worker_vmx_tags",
    "worker_write_guest",
    "worker_write_protect",
    "worker_zap_range",
];

/// Where they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Functions([u64; NAMES.len()]);

impl Functions {
    /// All of them.
    ///
    /// # Errors
    /// If one is not there.
    pub(super) fn find(symbols: &Symbols) -> Result<Self, LoadError> {
        let mut addresses = [0; NAMES.len()];
        for (address, name) in addresses.iter_mut().zip(NAMES) {
            *address = symbols.address(name).ok_or_else(|| absent(name))?;
        }
        Ok(Self(addresses))
    }

    /// Where `function` is.
    pub(super) const fn address(&self, function: Function) -> u64 {
        self.0[function as usize]
    }
}
