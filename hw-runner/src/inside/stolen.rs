//! The machines of a KVM, one for each kind of VM. A VM is told once what to zap when a memslot goes. A KVM
//! that strips stolen bits fixes a VM's mask when it is created; module parameters set that mask.

use crate::error::Doing;
use crate::{AliasMethod, Machine, MachineError};
use gpa_model::{BackendMode, Gpa, StolenMask, VmConfig};
use kvm_ioctls::Kvm;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// The stolen bits of new VMs, as a GPA mask.
const MASK: &str = "/sys/module/kvm/parameters/stolen_gpa_mask";
/// The mask that is checked, and the debugfs file that shows a VM's mask in gfns.
const CHECKED_MASK: u64 = 1 << 40;
const MASK_IN_FORCE: &str = "stolen_gfn_mask";
/// The result of range flushes.
const RANGE_FLUSH: &str = "/sys/module/kvm/parameters/stolen_range_flush";
/// How many machines are kept. Campaigns do not use more kinds at once.
const MACHINES: usize = 16;

/// The open machines of this KVM.
#[derive(Debug)]
pub(crate) struct Machines {
    /// By the stolen bits of the VM, and whether it zaps everything. The mask is 0 if KVM does not strip bits.
    open: BTreeMap<(u64, bool), Machine>,
    /// How aliases are made if KVM does not strip stolen bits.
    alias_method: AliasMethod,
    /// Whether KVM strips stolen bits.
    strips: bool,
    /// The current parameter for range flushes.
    backend: Option<BackendMode>,
    /// The current parameter for the mask.
    mask: Option<u64>,
}

impl Machines {
    /// No machines yet. The module parameters show whether this KVM strips stolen bits.
    pub(crate) fn new(alias_method: AliasMethod) -> Self {
        Self { open: BTreeMap::new(), alias_method, strips: Path::new(MASK).exists(), backend: None, mask: None }
    }

    /// A machine for programs without stolen bits.
    pub(crate) fn plain(&mut self) -> Result<&mut Machine, MachineError> {
        let vm = VmConfig::new(StolenMask::NONE, 1, VmConfig::DEFAULT_BASE, BackendMode::Absent);
        self.of(&vm.unwrap_or_default())
    }

    /// Checks that a new VM gets the mask that the parameter sets, if this KVM strips stolen bits: a kernel whose source has
    /// changed may carry the parameter and not the mask.
    pub(crate) fn check_mask(&self) -> Result<(), MachineError> {
        if !self.strips {
            return Ok(());
        }
        set(MASK, CHECKED_MASK)?;
        let vm = Kvm::new().and_then(|kvm| kvm.create_vm()).doing("create a VM")?;
        let file = format!("/sys/kernel/debug/kvm/{}-{}/{MASK_IN_FORCE}", std::process::id(), vm.as_raw_fd());
        let shown = fs::read_to_string(file).doing("read the stolen bits of a VM")?;
        set(MASK, 0)?;
        let shown = shown.trim().trim_start_matches("0x");
        let shown = Gpa::from_page(u64::from_str_radix(shown, 16).unwrap_or(0)).raw();
        if shown == CHECKED_MASK {
            return Ok(());
        }
        let why = format!("expected a VM with the stolen bits {CHECKED_MASK:#x}, found one with {shown:#x}");
        Err(io::Error::other(why)).doing("set the stolen bits of a VM")
    }

    /// Opens the machines for programs without stolen bits, so that the first programs are not charged for code
    /// that only opening executes.
    pub(crate) fn open_plain(&mut self) -> Result<(), MachineError> {
        let vm = VmConfig::default().with_stolen(StolenMask::NONE).unwrap_or_default();
        // Campaigns on a KVM that strips bits only use the quirk-less zap.
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
            // Even if there is a machine: a program with internal memslots gets a VM of its own.
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

/// The back-end in bits: 0 it exists, 1 its first flush fails, 2 its second flush fails.
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
