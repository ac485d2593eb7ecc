//! Watches programs by KVM's debugfs file, on kernels that have one.

use super::Machine;
use super::internal_slots::InternalSlot;
use crate::error::MachineError;
use crate::host::memory::Pages;
use crate::host::reclaim::always_invalidates;
use crate::kvm::mmu_debugfs::{MmuDebugfs, MmuEvent};
use gpa_model::limits::HOST_PAGES;
use gpa_model::{Op, Pfn, Program, VmConfig};
use kvm_ioctls::VmFd;

/// What debugfs shows of programs, if there is such a file.
#[derive(Debug, Default)]
pub(super) struct MmuWatch {
    /// The debugfs file; `None` if this kernel has none.
    mmu_debugfs: Option<MmuDebugfs>,
    /// The events of the current program, by op, if it is watched.
    seen: Option<Vec<Vec<MmuEvent>>>,
}

/// The memory that KVM maps, with the identity of each page.
#[derive(Clone, Copy)]
pub(super) struct PageNames<'a> {
    pub(super) memory: &'a Pages,
    pub(super) stamps: &'a [Pfn; HOST_PAGES],
    pub(super) internal_slots: &'a [InternalSlot],
}

impl MmuWatch {
    /// Watches the VM `vm`.
    pub(super) fn of(vm: &VmFd) -> Self {
        Self { mmu_debugfs: MmuDebugfs::open(vm), seen: None }
    }

    /// Watches the next program, `program`, unless it reclaims pages by a way that changes identities without
    /// an mmu_notifier call.
    pub(super) fn watch(&mut self, program: &Program) {
        let is_visible = |op: &Op| !matches!(*op, Op::Unmap { by, .. } if !always_invalidates(by));
        let watched = self.mmu_debugfs.is_some() && program.ops.iter().all(is_visible);
        self.seen = watched.then(|| vec![Vec::new(); program.ops.len()]);
    }

    /// Whether the current program is watched.
    pub(super) fn is_watching(&self) -> bool {
        self.seen.is_some()
    }

    /// Returns the events of the program, which has ended.
    pub(super) fn take(&mut self) -> Vec<Vec<MmuEvent>> {
        self.seen.take().unwrap_or_default()
    }

    /// Discards what happened before the first op.
    pub(super) fn begin(&mut self) -> Result<(), MachineError> {
        match (&mut self.mmu_debugfs, &self.seen) {
            (Some(mmu_debugfs), Some(_)) => mmu_debugfs.begin(),
            _ => Ok(()),
        }
    }

    /// Records what op number `at` changed; after the `last` op, also the entries indexed by gfn.
    pub(super) fn look(
        &mut self,
        vm: &VmConfig,
        named: PageNames<'_>,
        at: usize,
        last: bool,
    ) -> Result<(), MachineError> {
        let (Some(mmu_debugfs), Some(seen)) = (&mut self.mmu_debugfs, &mut self.seen) else { return Ok(()) };
        mmu_debugfs.learn_names(named.memory, named.stamps)?;
        for slot in named.internal_slots {
            let (memory, pages) = slot.pages();
            mmu_debugfs.learn_names(memory, &named.stamps[pages])?;
        }
        mmu_debugfs.look(vm, last, &mut seen[at])
    }
}

impl Machine {
    /// Records what op number `at` changed.
    pub(super) fn look(&mut self, vm: &VmConfig, at: usize) -> Result<(), MachineError> {
        let named = PageNames { memory: &self.memory, stamps: &self.stamps, internal_slots: &self.internal_slots };
        self.mmu_watch.look(vm, named, at, false)
    }

    /// Records the entries indexed by gfn after op number `at`, the last.
    pub(super) fn look_at_keys(&mut self, vm: &VmConfig, at: usize) -> Result<(), MachineError> {
        let named = PageNames { memory: &self.memory, stamps: &self.stamps, internal_slots: &self.internal_slots };
        self.mmu_watch.look(vm, named, at, true)
    }
}
