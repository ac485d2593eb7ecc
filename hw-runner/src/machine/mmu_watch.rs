//! Watching programs from inside KVM, where it lets itself be looked into.

use super::Machine;
use super::internal_slots::InternalSlot;
use crate::error::MachineError;
use crate::host::memory::Pages;
use crate::host::reclaim::always_invalidates;
use crate::kvm::mmu_debugfs::{MmuDebugfs, MmuEvent};
use gpa_model::limits::HOST_PAGES;
use gpa_model::{Op, Pfn, Program, VmConfig};
use kvm_ioctls::VmFd;

/// What is seen of programs, if anything is.
#[derive(Debug, Default)]
pub(super) struct MmuWatch {
    /// What this KVM shows of itself, if it shows anything.
    mmu_debugfs: Option<MmuDebugfs>,
    /// What was seen of the program that runs, after each op, if it is watched.
    seen: Option<Vec<Vec<MmuEvent>>>,
}

/// Where the pages are that KVM maps, and what they are called now.
#[derive(Clone, Copy)]
pub(super) struct PageNames<'a> {
    pub(super) memory: &'a Pages,
    pub(super) stamps: &'a [Pfn; HOST_PAGES],
    pub(super) internal_slots: &'a [InternalSlot],
}

impl MmuWatch {
    /// That of `vm`.
    pub(super) fn of(vm: &VmFd) -> Self {
        Self { mmu_debugfs: MmuDebugfs::open(vm), seen: None }
    }

    /// Watch `program`, which comes next, if what it does can be seen: not when pages get other names but stay where they are, which no
    /// notifier hears of.
    pub(super) fn watch(&mut self, program: &Program) {
        let is_visible = |op: &Op| !matches!(*op, Op::Unmap { by, .. } if !always_invalidates(by));
        let watched = self.mmu_debugfs.is_some() && program.ops.iter().all(is_visible);
        self.seen = watched.then(|| vec![Vec::new(); program.ops.len()]);
    }

    /// Whether the program that runs is watched.
    pub(super) fn is_watching(&self) -> bool {
        self.seen.is_some()
    }

    /// What was seen of the program, which is over.
    pub(super) fn take(&mut self) -> Vec<Vec<MmuEvent>> {
        self.seen.take().unwrap_or_default()
    }

    /// What there is before the first op is none of the program's.
    pub(super) fn begin(&mut self) -> Result<(), MachineError> {
        match (&mut self.mmu_debugfs, &self.seen) {
            (Some(mmu_debugfs), Some(_)) => mmu_debugfs.begin(),
            _ => Ok(()),
        }
    }

    /// See what op number `at` changed; if it is the `last`, what is kept by gfn, too.
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
    /// See what op number `at` changed.
    pub(super) fn look(&mut self, vm: &VmConfig, at: usize) -> Result<(), MachineError> {
        let named = PageNames { memory: &self.memory, stamps: &self.stamps, internal_slots: &self.internal_slots };
        self.mmu_watch.look(vm, named, at, false)
    }

    /// See what is kept by gfn after op number `at`, the last.
    pub(super) fn look_at_keys(&mut self, vm: &VmConfig, at: usize) -> Result<(), MachineError> {
        let named = PageNames { memory: &self.memory, stamps: &self.stamps, internal_slots: &self.internal_slots };
        self.mmu_watch.look(vm, named, at, true)
    }
}
