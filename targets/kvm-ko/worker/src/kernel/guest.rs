//! Accesses of the guest: a whole `KVM_RUN` each.
//!
//! UNSAFETY: reads and writes the page that KVM shares with user space.

#![expect(unsafe_code, reason = "reads and writes struct kvm_run")]

use super::{Access, Failure, Fd, Kernel};
use crate::cpu::{self, Progress, settings};
use crate::memory::PAGE;
use kvm_bindings::{KVM_EXIT_DIRTY_RING_FULL, KVM_EXIT_HLT, KVM_EXIT_MEMORY_FAULT, KVM_EXIT_MMIO, kvm_run};

/// How a whole `KVM_RUN` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// The access reached memory.
    Memory {
        /// The page.
        pfn: u64,
        /// What was read.
        value: u64,
        /// Whether the processor had the translation in its TLB.
        from_tlb: bool,
        /// Nested page faults, or page faults where the guest's tables are shadowed, on the way.
        faults: u32,
    },
    /// KVM carried the instruction out itself.
    Emulated {
        /// What was read.
        value: u64,
        /// Faults on the way.
        faults: u32,
    },
    /// `KVM_EXIT_MMIO`. Until [`Kernel::finish_mmio`] the vCPU must not be entered.
    Mmio {
        /// The address that user space is told.
        gpa: u64,
        /// Whether it is a write.
        write: bool,
        /// What it writes.
        value: u64,
    },
    /// The guest got a page fault of its own (#PF), with this error code.
    GuestFault {
        /// As the processor pushes it.
        code: u32,
    },
    /// `KVM_EXIT_MEMORY_FAULT`.
    MemoryFault {
        /// `flags` of the exit.
        flags: u64,
        /// First byte.
        gpa: u64,
        /// How many bytes.
        size: u64,
    },
    /// `KVM_EXIT_DIRTY_RING_FULL`.
    RingFull,
    /// It faulted again and again and got nowhere.
    Retry,
    /// Another exit: `KVM_EXIT_…`.
    Exit {
        /// Which.
        reason: u32,
    },
    /// `KVM_RUN` itself failed.
    Errno(i32),
    /// The kernel died.
    Dead,
}

/// `_IO(KVMIO, 0x80)`.
const RUN: u64 = 0xae80;

impl Kernel {
    /// vCPU `vcpu` makes `access`.
    pub fn enter(&self, vcpu: Fd, access: Access) -> Entered {
        let Ok(state) = self.vcpu(vcpu) else { return Entered::Dead };
        cpu::prepare(state.id, access);
        self.run(vcpu)
    }

    /// Give user space's answer after [`Entered::Mmio`] and go on with the access: what was read, nothing for a write.
    pub fn finish_mmio(&self, vcpu: Fd, value: u64) -> Entered {
        let Ok(state) = self.vcpu(vcpu) else { return Entered::Dead };
        // SAFETY: the page of a vCPU that is open, after an exit for MMIO.
        unsafe {
            let mmio = &mut (*(state.run as *mut kvm_run)).__bindgen_anon_1.mmio;
            if mmio.is_write == 0 {
                mmio.data = value.to_le_bytes();
            }
        }
        self.run(vcpu)
    }

    /// The page that KVM shares with user space. It is there as long as the vCPU is open.
    ///
    /// # Errors
    /// If the kernel died.
    pub fn run_page(&self, vcpu: Fd) -> Result<*mut kvm_run, Failure> {
        Ok(self.vcpu(vcpu)?.run as *mut kvm_run)
    }

    fn run(&self, vcpu: Fd) -> Entered {
        let result = self.ioctl(vcpu, RUN, 0);
        let Ok(state) = self.vcpu(vcpu) else { return Entered::Dead };
        let guest = cpu::progress(state.id);
        let (faults, value) = guest.map_or((0, 0), |guest| (guest.faults, guest.value));
        // SAFETY: the page of a vCPU that is open.
        let run = unsafe { &*(state.run as *const kvm_run) };
        let entered = match result {
            Err(Failure::Dead) => return Entered::Dead,
            // SAFETY: of this exit.
            Err(Failure::Errno(_)) if run.exit_reason == KVM_EXIT_MEMORY_FAULT => unsafe {
                let fault = run.__bindgen_anon_1.memory_fault;
                Entered::MemoryFault { flags: fault.flags, gpa: fault.gpa, size: fault.size }
            },
            Err(Failure::Errno(libc::EINTR)) if faults >= settings::FAULTS_MAX => Entered::Retry,
            Err(Failure::Errno(errno)) => Entered::Errno(errno),
            Ok(_) => match (run.exit_reason, guest.map(|guest| guest.progress)) {
                (KVM_EXIT_HLT, Some(Progress::Done { physical, from_tlb })) => {
                    Entered::Memory { pfn: physical / PAGE, value, from_tlb, faults }
                }
                (KVM_EXIT_HLT, Some(Progress::Emulated)) => Entered::Emulated { value, faults },
                (_, Some(Progress::Faulted { code })) => Entered::GuestFault { code },
                (KVM_EXIT_MMIO, _) => {
                    // SAFETY: of this exit.
                    let mmio = unsafe { run.__bindgen_anon_1.mmio };
                    let write = mmio.is_write != 0;
                    let value = if write { u64::from_le_bytes(mmio.data) & low_bytes(mmio.len) } else { 0 };
                    return Entered::Mmio { gpa: mmio.phys_addr, write, value };
                }
                (KVM_EXIT_DIRTY_RING_FULL, _) => Entered::RingFull,
                (reason, _) => Entered::Exit { reason },
            },
        };
        cpu::abandon(state.id);
        entered
    }
}

const fn low_bytes(len: u32) -> u64 {
    if len >= 8 { u64::MAX } else { (1 << (len * 8)) - 1 }
}
