//! What a vCPU is when it starts, and what KVM's structures say of it.

use super::{Failure, Fd, Function, Kernel};
use kvm_bindings::{kvm_cpuid_entry2, kvm_regs, kvm_segment, kvm_sregs};

/// How the guest of a vCPU translates its addresses. Its segments are flat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Protected mode, 32 bit, without paging.
    Flat,
    /// Protected mode with tables of 32-bit entries, from CR3 on.
    Legacy(u64),
    /// Protected mode with tables of 64-bit entries.
    Pae(u64),
    /// Long mode with tables of four levels.
    Long(u64),
}

/// What KVM's structures say of a vCPU: `struct worker_vcpu`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct State {
    /// Physical address of the first table; all ones if it has none.
    pub(super) root: u64,
    pub(super) requests: u64,
    /// Its `struct kvm_run`.
    pub(super) run: u64,
    /// Its dirty ring.
    pub(super) ring: u64,
    pub(super) ring_entries: u32,
    pub(super) id: u32,
    pub(super) smm: u32,
    pub(super) root_level: u32,
    pub(super) mmio_gen_in_flux: u32,
    padding: u32,
    kvm: u64,
}

/// `KVM_SET_CPUID2` has room for these.
#[repr(C)]
struct Cpuid {
    count: u32,
    padding: u32,
    entries: [kvm_cpuid_entry2; 5],
}

/// Requests of `<linux/kvm.h>`.
const GET_SREGS: u64 = 0x8138_ae83;
const SET_SREGS: u64 = 0x4138_ae84;
const SET_REGS: u64 = 0x4090_ae82;
const SET_CPUID2: u64 = 0x4008_ae90;

/// Where the guest's one instruction would be.
const RIP: u64 = 0x1000;
const CR0_PE: u64 = 1;
const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
/// LME and LMA.
const EFER_LONG: u64 = 1 << 8 | 1 << 10;
const EFER_NXE: u64 = 1 << 11;

impl Kernel {
    /// Make a vCPU ready to run in `mode`, with a CPUID that has long mode, NX and the physical bits of the processor.
    ///
    /// # Errors
    /// As KVM refuses it.
    pub fn start_vcpu(&self, vcpu: Fd, mode: Mode) -> Result<(), Failure> {
        self.ioctl_with(vcpu, SET_CPUID2, &mut self.cpuid())?;
        self.set_mode(vcpu, mode, false)?;
        let mut regs = kvm_regs { rip: RIP, rflags: 2, ..Default::default() };
        self.ioctl_with(vcpu, SET_REGS, &mut regs).map(drop)
    }

    /// Let a vCPU translate its addresses as `mode` says from now on (`KVM_SET_SREGS`), as a program of the guest (`user`) or as its
    /// kernel.
    ///
    /// # Errors
    /// As KVM refuses it: in [`Mode::Pae`] the first table must be in a memslot.
    pub fn set_mode(&self, vcpu: Fd, mode: Mode, user: bool) -> Result<(), Failure> {
        let mut sregs = kvm_sregs::default();
        self.ioctl_with(vcpu, GET_SREGS, &mut sregs)?;
        let long = matches!(mode, Mode::Long(_));
        sregs.cs = segment(8, 11, long, user);
        let data = segment(16, 3, false, user);
        (sregs.ds, sregs.es, sregs.ss, sregs.fs, sregs.gs) = (data, data, data, data, data);
        let (root, pae) = match mode {
            Mode::Flat => (0, false),
            Mode::Legacy(root) => (root, false),
            Mode::Pae(root) | Mode::Long(root) => (root, true),
        };
        let paging = mode != Mode::Flat;
        sregs.cr0 = sregs.cr0 & !CR0_PG | CR0_PE | CR0_WP | if paging { CR0_PG } else { 0 };
        sregs.cr3 = root;
        sregs.cr4 = sregs.cr4 & !(CR4_PAE | CR4_PSE) | if pae { CR4_PAE } else { CR4_PSE };
        sregs.efer = sregs.efer & !EFER_LONG | if long { EFER_LONG } else { 0 } | if pae { EFER_NXE } else { 0 };
        self.ioctl_with(vcpu, SET_SREGS, &mut sregs).map(drop)
    }

    fn cpuid(&self) -> Cpuid {
        let entry = |function, eax, edx| kvm_cpuid_entry2 { function, eax, edx, ..Default::default() };
        // PSE, MSR, PAE, CX8, PGE; long mode, NX, 1 GiB pages.
        let basic = 1 << 3 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 13;
        let extended = 1 << 20 | 1 << 26 | 1 << 29;
        let bits = u32::from(self.physical_bits) | 48 << 8;
        let entries = [
            entry(0, 1, 0),
            entry(1, 0, basic),
            entry(0x8000_0000, 0x8000_0008, 0),
            entry(0x8000_0001, 0, extended),
            entry(0x8000_0008, bits, 0),
        ];
        Cpuid { count: entries.len() as u32, padding: 0, entries }
    }

    /// What KVM's structures say of `vcpu`.
    pub(super) fn vcpu(&self, vcpu: Fd) -> Result<State, Failure> {
        let mut state = State::default();
        self.call(Function::Vcpu, &[vcpu.0.into(), &raw mut state as u64])?;
        Ok(state)
    }
}

fn segment(selector: u16, kind: u8, long: bool, user: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: selector | if user { 3 } else { 0 },
        type_: kind,
        dpl: if user { 3 } else { 0 },
        present: 1,
        s: 1,
        g: 1,
        db: (!long).into(),
        l: long.into(),
        ..Default::default()
    }
}
