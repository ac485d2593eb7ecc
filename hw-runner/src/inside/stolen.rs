//! The machines of a KVM, one for each kind of VM: what a VM zaps when a memslot goes it is told once, and on a KVM that strips stolen bits
//! itself it keeps the mask it was created with. Such a KVM is told by its parameters.

use crate::{AliasMethod, Machine, MachineError};
use gpa_model::{BackendMode, StolenMask, VmConfig};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// The mask of VMs created from now on, as a GPA.
const MASK: &str = "/sys/module/kvm/parameters/stolen_gpa_mask";
/// What range flushes come to.
const RANGE_FLUSH: &str = "/sys/module/kvm/parameters/stolen_range_flush";
/// Machines that are kept. More kinds than this are not used at once.
const MACHINES: usize = 16;

/// The machines of this KVM.
#[derive(Debug)]
pub(crate) struct Machines {
    /// By the mask their VM was created with, and whether it zaps everything. Without a mask it is 0, and aliases are made from outside of
    /// KVM.
    open: BTreeMap<(u64, bool), Machine>,
    /// How aliases come about where KVM does not strip them.
    alias_method: AliasMethod,
    /// Whether KVM strips stolen bits.
    strips: bool,
    /// The back-end that is set.
    backend: Option<BackendMode>,
    /// The mask that is set.
    mask: Option<u64>,
}

impl Machines {
    /// None yet; whether this KVM knows stolen bits its parameters say.
    pub(crate) fn new(alias_method: AliasMethod) -> Self {
        Self { open: BTreeMap::new(), alias_method, strips: Path::new(MASK).exists(), backend: None, mask: None }
    }

    /// A machine for programs without stolen bits.
    pub(crate) fn plain(&mut self) -> Result<&mut Machine, MachineError> {
        let vm = VmConfig::new(StolenMask::NONE, 1, VmConfig::DEFAULT_BASE, BackendMode::Absent);
        self.of(&vm.unwrap_or_default())
    }

    /// Open those of programs without stolen bits. What opening one takes is then no program's, and no program is taken to have executed it.
    pub(crate) fn open_plain(&mut self) -> Result<(), MachineError> {
        let vm = VmConfig::default().with_stolen(StolenMask::NONE).unwrap_or_default();
        // Campaigns on a KVM that strips bits itself have nothing but its own zapped.
        let kinds: &[bool] = if self.strips { &[false] } else { &[false, true] };
        kinds.iter().try_for_each(|&zap_all| self.of(&vm.with_slot_zap_all(zap_all)).map(drop))
    }

    /// A machine for programs of `vm`.
    pub(crate) fn of(&mut self, vm: &VmConfig) -> Result<&mut Machine, MachineError> {
        let mut mask = 0;
        if self.strips {
            mask = vm.stolen().gpa_mask();
            if self.backend != Some(vm.backend()) {
                set(RANGE_FLUSH, switches(vm.backend()))?;
                self.backend = Some(vm.backend());
            }
            // Even where there is a machine: a program with private memslots has a VM of its own.
            if self.mask != Some(mask) {
                set(MASK, mask)?;
                self.mask = Some(mask);
            }
        }
        let kind = (mask, vm.slot_zap_all());
        if !self.open.contains_key(&kind) {
            if self.open.len() >= MACHINES {
                self.open.clear();
            }
            let machine = match mask {
                0 => Machine::open_for(self.alias_method, vm),
                _ => Machine::open_stripping(vm),
            };
            self.open.insert(kind, machine?);
        }
        self.open.get_mut(&kind).ok_or(MachineError::Missing("a machine for this kind of VM"))
    }
}

/// The back-end as bits: there is one, its first flush fails, its second flush fails.
const fn switches(backend: BackendMode) -> u64 {
    match backend {
        BackendMode::Absent => 0b000,
        BackendMode::Works => 0b001,
        BackendMode::FailsFirst => 0b011,
        BackendMode::FailsSecond => 0b101,
        BackendMode::FailsAll => 0b111,
    }
}

fn set(parameter: &str, value: u64) -> Result<(), MachineError> {
    let call = |source: io::Error| MachineError::Call { doing: "set a parameter of kvm", source };
    fs::write(parameter, value.to_string()).map_err(call)
}
