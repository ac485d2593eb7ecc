//! A KVM that strips stolen bits itself: the machines it runs, one for each mask, because a VM keeps the mask it was created with.
//!
//! Stock KVM knows no stolen bits, and one machine serves all programs. A KVM built with them says so by its parameters.

use crate::{Machine, MachineError, Realisation};
use gpa_model::{BackendMode, StolenMask, Vm};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// The mask of VMs created from now on, as a GPA.
const MASK: &str = "/sys/module/kvm/parameters/stolen_gpa_mask";
/// What range flushes come to.
const RANGE_FLUSH: &str = "/sys/module/kvm/parameters/stolen_range_flush";
/// Machines that are kept. More masks than this are not used at once.
const MACHINES: usize = 16;

/// The machines of this KVM.
#[derive(Debug)]
pub(crate) struct Machines {
    /// By the mask their VM was created with; without one it is 0, and aliases are made from outside of KVM.
    open: BTreeMap<u64, Machine>,
    /// How aliases come about where KVM does not strip them.
    realisation: Realisation,
    /// Whether KVM strips stolen bits.
    strips: bool,
    /// The back-end that is set.
    backend: Option<BackendMode>,
    /// The mask that is set.
    mask: Option<u64>,
}

impl Machines {
    /// None yet; whether this KVM knows stolen bits its parameters say.
    pub(crate) fn new(realisation: Realisation) -> Self {
        Self { open: BTreeMap::new(), realisation, strips: Path::new(MASK).exists(), backend: None, mask: None }
    }

    /// A machine for programs without stolen bits.
    pub(crate) fn plain(&mut self) -> Result<&mut Machine, MachineError> {
        let vm = Vm::new(StolenMask::NONE, 1, Vm::DEFAULT_BASE, BackendMode::Absent);
        self.of(&vm.unwrap_or_default())
    }

    /// A machine for programs of `vm`.
    pub(crate) fn of(&mut self, vm: &Vm) -> Result<&mut Machine, MachineError> {
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
        if !self.open.contains_key(&mask) {
            if self.open.len() >= MACHINES {
                self.open.clear();
            }
            let bits = vm.stolen();
            let machine = match mask {
                0 => Machine::open_with(self.realisation),
                _ => Machine::open_stripping(bits.bits()),
            };
            self.open.insert(mask, machine?);
        }
        self.open.get_mut(&mask).ok_or(MachineError::Missing("a machine for these stolen bits"))
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
