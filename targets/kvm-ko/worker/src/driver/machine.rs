//! One VM with its vCPUs.

use super::memslots::Memslots;
use super::setup::Setup;
use super::{Stop, ioctl};
use gpa_model::limits::{TOP_GFN, VCPUS};
use gpa_model::{Gfn, VmConfig};
use kvm_bindings::kvm_enable_cap;
use kvm_ko_worker::kernel::{Failure, Fd, Kernel, Mode, Thread};

/// `KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2`, and its `KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE`.
const MANUAL_DIRTY_LOG: (u32, u64) = (168, 1);
/// `KVM_CAP_DISABLE_QUIRKS2`, and `KVM_X86_QUIRK_SLOT_ZAP_ALL`.
const ZAP_BY_SLOT: (u32, u64) = (213, 1 << 7);

/// A VM that runs a program.
pub(super) struct Machine {
    pub(super) vm: VmConfig,
    pub(super) fd: Fd,
    pub(super) vcpus: Vec<Fd>,
    pub(super) memslots: Memslots,
    /// Faults that are held, one a vCPU.
    pub(super) held: [Option<HeldFault>; VCPUS],
    /// So that no word is written twice.
    pub(super) values: u64,
    /// Whether KVM tells of writes to tracked frames.
    pub(super) tracks: bool,
    /// The frames of the zap that has begun.
    pub(super) zapping: Option<(Gfn, u32)>,
}

/// A fault in the middle.
#[derive(Clone, Copy)]
pub(super) struct HeldFault {
    pub(super) thread: Thread,
    /// The word that it writes.
    pub(super) value: u64,
}

/// What goes wrong where KVM must not refuse.
pub(super) fn odd(doing: &str) -> impl Fn(Failure) -> Stop {
    move |failure| match failure {
        Failure::Dead => Stop::Dead,
        Failure::Errno(errno) => Stop::Odd(format!("{doing}: errno {errno}")),
    }
}

impl Machine {
    /// As `vm`, with no memslot that a program could name.
    pub(super) fn new(kernel: &Kernel, vm: &VmConfig, setup: &Setup) -> Result<Self, Stop> {
        let fd = kernel.create_vm(0).map_err(odd("create a VM"))?;
        let enable = |(cap, argument): (u32, u64)| {
            let mut enable = kvm_enable_cap { cap, ..kvm_enable_cap::default() };
            enable.args[0] = argument;
            kernel.ioctl_with(fd, ioctl::ENABLE_CAP, &mut enable)
        };
        enable(MANUAL_DIRTY_LOG).map_err(odd("log dirty pages by hand"))?;
        if !vm.slot_zap_all() {
            // Kernels without that quirk zap by slot, or always all; a guest cannot tell.
            match enable(ZAP_BY_SLOT) {
                Err(Failure::Dead) => return Err(Stop::Dead),
                Err(Failure::Errno(_)) | Ok(_) => {}
            }
        }
        let mut vcpus = Vec::new();
        for id in 0..u32::from(vm.vcpus()) {
            let vcpu = kernel.create_vcpu(fd, id).map_err(odd("create a vCPU"))?;
            kernel.start_vcpu(vcpu, Mode::Flat).map_err(odd("start a vCPU"))?;
            vcpus.push(vcpu);
        }
        let memslots = Memslots::new(vm, setup.alias_method);
        let machine = Self {
            vm: *vm,
            fd,
            vcpus,
            memslots,
            held: [const { None }; VCPUS],
            values: 0,
            tracks: false,
            zapping: None,
        };
        if setup.has_rmap() {
            machine.anchor(kernel)?;
        }
        Ok(machine)
    }

    /// A memslot that no program can name: the older MMU lets no vCPU run where there is none (`kvm_mmu_available_pages()`).
    fn anchor(&self, kernel: &Kernel) -> Result<(), Stop> {
        let page = self.vm.hva(gpa_model::limits::HOST_PAGES).page();
        self.memslots.set_anchor(kernel, self.fd, TOP_GFN, page)
    }

    /// Whether any fault is held.
    pub(super) fn any_held(&self) -> bool {
        self.held.iter().any(Option::is_some)
    }

    /// Take it down. Faults that are held go on first: they hold what the rest waits for.
    pub(super) fn close(mut self, kernel: &Kernel) -> Result<(), Stop> {
        for fault in self.held.iter_mut().filter_map(Option::take) {
            Self::resume(kernel, fault.thread)?;
        }
        if self.tracks {
            kernel.track_vm(self.fd, false).map_err(odd("track no writes"))?;
        }
        for vcpu in &self.vcpus {
            kernel.close(*vcpu).map_err(odd("close a vCPU"))?;
        }
        kernel.close(self.fd).map_err(odd("close a VM")).map(drop)
    }
}
