//! A vCPU, which carries out lists of accesses and reports the outcome of each.

use super::requests::{self, Request};
use super::{assembly, layout, mode};
use crate::error::{Doing, MachineError};
use crate::host::memory::Pages;
use crate::host::watchdog::Watchdog;
use crate::kvm::address_space::AddressSpace;
use crate::kvm::stats::Stats;
use gpa_model::{Gpa, Pfn};
use kvm_bindings::{CpuId, KVM_MP_STATE_RUNNABLE, KVM_RUN_X86_SMM, kvm_mp_state, kvm_regs, kvm_sregs, kvm_vcpu_events};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use std::ops::Range;

/// An access with more exits than this has failed.
const EXITS_PER_ACCESS: u32 = 8;
/// An access with more faults than this, while nothing else changes, is one that KVM retries for ever.
const FAULTS_PER_ACCESS: u64 = 64;

/// The outcome of one access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It found this value where a page has its identity.
    Found(Pfn),
    /// It exited to user space, first for this address.
    Exited(Gpa),
    /// It raised a page fault.
    GuestFault,
    /// KVM could not carry it out.
    Failed,
    /// KVM exited with `KVM_EXIT_MEMORY_FAULT`: it took the access for one to private, or to shared, memory.
    MemoryFault { private: bool },
    /// KVM retried it without end.
    Retried,
    /// The dirty ring of the vCPU is full.
    RingFull,
}

/// A vCPU of the machine.
#[derive(Debug)]
pub(crate) struct Vcpu {
    fd: VcpuFd,
    number: usize,
    sregs: kvm_sregs,
    /// How often the page tables had been rewritten when CR3 last changed.
    tables: u64,
    /// Which of the two roots is in CR3.
    root: usize,
    events: kvm_vcpu_events,
    stats: Option<Stats>,
    /// Exits so far. KVM emulates the instruction of each.
    exits: u64,
    /// The number of the next request.
    next: usize,
    /// The outcome of the request before it, if that one exited and is not complete yet.
    unfinished: Option<Outcome>,
}

/// Why `KVM_RUN` returned, without a borrow of the vCPU.
enum Stop {
    Done,
    Mmio(Gpa),
    Gone(&'static str),
    RingFull,
    MemoryFault { private: bool },
    Interrupted,
}

impl Vcpu {
    /// Creates vCPU `number`, ready for its first list.
    pub(crate) fn new(vm: &VmFd, cpuid: &CpuId, number: usize) -> Result<Self, MachineError> {
        let fd = vm.create_vcpu(number as u64).doing("create a vCPU")?;
        fd.set_cpuid2(cpuid).doing("set the CPUID of a vCPU")?;
        let mut sregs = fd.get_sregs().doing("get the registers of a vCPU")?;
        mode::special_registers(&mut sregs, 0);
        let events = fd.get_vcpu_events().doing("get the events of a vCPU")?;
        let stats = crate::kvm::ioctl::stats_file(&fd).and_then(Stats::new).ok();
        let mut vcpu =
            Self { fd, number, sregs, tables: 0, root: 0, events, stats, exits: 0, next: 0, unfinished: None };
        vcpu.restart(0)?;
        Ok(vcpu)
    }

    /// Disables its local APIC. While a local APIC is enabled, the processor takes an access to the APIC access
    /// page, under any name, for an access to the APIC (SDM vol. 3C, 30.4).
    pub(crate) fn disable_local_apic(&mut self) -> Result<(), MachineError> {
        const ENABLE: u64 = 1 << 11;
        self.sregs.apic_base &= !ENABLE;
        self.restart(0)
    }

    /// KVM's counters of this vCPU.
    pub(crate) fn stats(&self) -> Option<&Stats> {
        self.stats.as_ref()
    }

    /// How often the guest exited with an instruction that KVM emulates.
    pub(crate) fn exits(&self) -> u64 {
        self.exits
    }

    /// Uses page tables that were rewritten `tables` times. If that number is new, changes CR3, which flushes
    /// the guest's TLB.
    pub(crate) fn use_tables(&mut self, tables: u64) -> Result<(), MachineError> {
        if self.tables == tables {
            return Ok(());
        }
        self.settle()?;
        self.root ^= 1;
        mode::special_registers(&mut self.sregs, self.root);
        self.fd.set_sregs(&self.sregs).doing("set the page tables of a vCPU")?;
        self.tables = tables;
        Ok(())
    }

    /// Moves the vCPU into `space`, without changing its registers.
    pub(crate) fn enter_space(&mut self, space: AddressSpace) -> Result<(), MachineError> {
        let smm = u8::from(space == AddressSpace::Smm);
        if self.events.smi.smm == smm {
            return Ok(());
        }
        self.settle()?;
        self.events.smi.smm = smm;
        self.fd.set_vcpu_events(&self.events).doing("take a vCPU into or out of SMM")
    }

    /// Checks that KVM ran the guest in the address space that was asked for. Otherwise aliases made by it
    /// would prove nothing.
    fn check_space(&mut self) -> Result<(), MachineError> {
        let (wanted, flags) = (self.events.smi.smm != 0, u32::from(self.fd.get_kvm_run().flags));
        if wanted == (flags & KVM_RUN_X86_SMM != 0) {
            return Ok(());
        }
        let (wanted, found) = if wanted { ("in", "outside") } else { ("outside", "in") };
        Err(MachineError::Exit(format!("it {found} SMM, and not {wanted}")))
    }

    /// Its number in the VM.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// The KVM vCPU, for another guest.
    pub(crate) fn fd(&mut self) -> &mut VcpuFd {
        &mut self.fd
    }

    /// Prefaults a page (`KVM_PRE_FAULT_MEMORY`).
    pub(crate) fn pre_fault(&self, gpa: Gpa) -> std::io::Result<()> {
        crate::kvm::ioctl::pre_fault(&self.fd, gpa)
    }

    /// Counts exits of another guest.
    pub(crate) fn count_exits(&mut self, exits: u64) {
        self.exits += exits;
    }

    /// Resets all state, to start with request `n`.
    pub(crate) fn restart(&mut self, n: usize) -> Result<(), MachineError> {
        self.begin(&requests::registers(self.number, n))?;
        (self.next, self.unfinished) = (n, None);
        Ok(())
    }

    /// Resets all state, to start with `registers`.
    pub(crate) fn begin(&mut self, registers: &kvm_regs) -> Result<(), MachineError> {
        self.settle()?;
        self.fd.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE }).doing("wake a vCPU")?;
        self.fd.set_vcpu_events(&self.events).doing("reset the events of a vCPU")?;
        self.fd.set_sregs(&self.sregs).doing("reset the special registers of a vCPU")?;
        self.fd.set_regs(registers).doing("reset the registers of a vCPU")
    }

    /// Uses the page tables at `root` from now on.
    pub(crate) fn walk_from(&mut self, root: Gpa) -> Result<(), MachineError> {
        mode::use_root(&mut self.sregs, root);
        self.restart(0)
    }

    /// Runs code at CPL 0 until it reports that it is done.
    pub(crate) fn run_privileged(&mut self, registers: &kvm_regs, watchdog: &Watchdog) -> Result<(), MachineError> {
        self.settle()?;
        self.fd.set_sregs(&mode::privileged(&self.sregs)).doing("enter ring 0 on a vCPU")?;
        self.fd.set_regs(registers).doing("set the registers of a vCPU")?;
        loop {
            match self.enter()? {
                Stop::Done => break,
                Stop::Interrupted if watchdog.expired() => return Err(MachineError::Hung(watchdog.limit())),
                Stop::Interrupted => {}
                Stop::Mmio(gpa) => return Err(MachineError::Exit(format!("an exit for {gpa:?} in ring 0"))),
                Stop::Gone(why) => return Err(MachineError::Exit(format!("{why} in ring 0"))),
                Stop::RingFull => return Err(MachineError::Exit("a full dirty ring in ring 0".to_owned())),
                Stop::MemoryFault { .. } => return Err(MachineError::Exit("a memory fault in ring 0".to_owned())),
            }
        }
        self.exits += 1;
        self.restart(0)
    }

    /// Enters the vCPU and returns at once. KVM completes an instruction that exited on the next entry, which
    /// would overwrite registers that user space has set in between.
    fn settle(&mut self) -> Result<(), MachineError> {
        self.fd.set_kvm_immediate_exit(1);
        let result = self.fd.run().map(|_| ());
        self.fd.set_kvm_immediate_exit(0);
        match result {
            Err(error) if error.errno() != libc::EINTR => Err(error).doing("let a vCPU complete its exit"),
            _ => Ok(()),
        }
    }

    /// How many guest faults KVM has handled.
    fn faults(&self) -> Option<u64> {
        self.stats.as_ref()?.read("pf_taken")
    }

    /// Carries out `requests`, at most a program's worth, and writes the outcome of each to `outcomes`. With `may_retry` there is
    /// only one request, which KVM may retry for ever.
    ///
    /// A last access that exited is completed by the next list, because an entry of its own would cost the most.
    pub(crate) fn run(
        &mut self,
        own: &Pages,
        watchdog: &Watchdog,
        requests: &[Request],
        may_retry: bool,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), MachineError> {
        let retries = if may_retry { self.faults() } else { None };
        if self.next + requests.len() >= layout::REQUESTS {
            self.restart(0)?;
        }
        let (first, end) = (self.next, self.next + requests.len());
        for (n, request) in (first..).zip(requests) {
            requests::write_request(own, self.number, n, request);
        }
        requests::end_requests(own, self.number, end);
        let mut left = Left::of(first..end, self.unfinished);
        loop {
            let stop = self.enter()?;
            self.exits += u64::from(!matches!(stop, Stop::Interrupted));
            if matches!(stop, Stop::Done | Stop::Mmio(_)) {
                self.check_space()?;
            }
            let given_up = match stop {
                Stop::Done => {
                    (self.next, self.unfinished) = (0, None);
                    break;
                }
                Stop::Interrupted if watchdog.expired() => return Err(MachineError::Hung(watchdog.limit())),
                Stop::Interrupted => {
                    let patience = retries.zip(self.faults());
                    let in_vain = patience.is_some_and(|(before, now)| now > before + FAULTS_PER_ACCESS);
                    // The signal may also arrive when all requests are done.
                    let at = if in_vain { self.at(own, &mut left) } else { None };
                    at.map(|n| (n, Outcome::Retried))
                }
                Stop::Mmio(gpa) => {
                    let n = self.current(own, &mut left, || format!("an exit for {gpa:?}"))?;
                    requests::note_exit(own, self.number, n);
                    let early = left.early(n);
                    if early.is_none() {
                        (*early, left.exits) = (Some(Outcome::Exited(gpa)), 0);
                        if n + 1 == end {
                            (self.next, self.unfinished) = (end, Some(Outcome::Exited(gpa)));
                            break;
                        }
                    }
                    left.exits += 1;
                    (left.exits > EXITS_PER_ACCESS).then_some((n, Outcome::Failed))
                }
                Stop::RingFull => {
                    let n = self.at(own, &mut left).unwrap_or(end);
                    for early in &mut left.early[n - left.first..] {
                        early.get_or_insert(Outcome::RingFull);
                    }
                    self.restart(0)?;
                    break;
                }
                Stop::MemoryFault { private } => {
                    let n = self.current(own, &mut left, || "a memory fault".to_owned())?;
                    Some((n, Outcome::MemoryFault { private }))
                }
                Stop::Gone(why) => {
                    let n = self.current(own, &mut left, || why.to_owned())?;
                    let page_fault = self.fd.get_sregs().doing("get the registers of a vCPU")?.cr2 != 0;
                    Some((n, if page_fault { Outcome::GuestFault } else { Outcome::Failed }))
                }
            };
            if let Some((n, outcome)) = given_up {
                // An earlier exit of the same access is the better outcome.
                left.early(n).get_or_insert(outcome);
                left.at = n + 1;
                // Also after the last request: a guest that died has no root until it is entered again.
                self.restart(n + 1)?;
            }
        }
        let found = |n| Outcome::Found(requests::result(own, self.number, n));
        outcomes.clear();
        outcomes.extend((first..end).map(|n| left.early(n).unwrap_or_else(|| found(n))));
        Ok(())
    }

    /// The number of the current request.
    fn current(&self, own: &Pages, left: &mut Left, why: impl Fn() -> String) -> Result<usize, MachineError> {
        self.at(own, left).ok_or_else(|| MachineError::Exit(why()))
    }

    /// The number of the current request; `None` at the end of the list.
    fn at(&self, own: &Pages, left: &mut Left) -> Option<usize> {
        let end = left.first + left.early.len();
        while left.at < end && requests::is_done(own, self.number, left.at) {
            left.at += 1;
        }
        (left.at < end).then_some(left.at)
    }

    fn enter(&mut self) -> Result<Stop, MachineError> {
        const PRIVATE: u64 = kvm_bindings::KVM_MEMORY_EXIT_FLAG_PRIVATE as u64;
        Ok(match self.fd.run() {
            Ok(VcpuExit::IoOut(assembly::DONE_PORT, _)) => Stop::Done,
            Ok(VcpuExit::MmioRead(gpa, data)) => {
                data.fill(0);
                Stop::Mmio(Gpa::new(gpa))
            }
            Ok(VcpuExit::MmioWrite(gpa, _)) => Stop::Mmio(Gpa::new(gpa)),
            Ok(VcpuExit::Shutdown) => Stop::Gone("a shutdown"),
            Ok(VcpuExit::InternalError) => Stop::Gone("an internal error of KVM"),
            // Also if there is no host page; the access then counts as failed.
            Ok(VcpuExit::MemoryFault { flags, .. }) => Stop::MemoryFault { private: flags & PRIVATE != 0 },
            Ok(VcpuExit::Intr) => Stop::Interrupted,
            Ok(VcpuExit::Unsupported(kvm_bindings::KVM_EXIT_DIRTY_RING_FULL)) => Stop::RingFull,
            Ok(other) => return Err(MachineError::Exit(format!("{other:?}"))),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => Stop::Interrupted,
            // KVM cannot access the host page: to user space the access has failed.
            Err(error) if matches!(error.errno(), libc::EFAULT | libc::EHWPOISON) => Stop::Gone("a bad host page"),
            Err(error) => return Err(error).doing("run a vCPU"),
        })
    }
}

/// The progress of one list.
struct Left {
    /// The number of the first request to complete: the list's first, or the one before it.
    first: usize,
    /// All requests before this one are done.
    at: usize,
    /// Exits of the request `at`.
    exits: u32,
    /// The outcome of each request that the guest cannot report.
    early: Vec<Option<Outcome>>,
}

impl Left {
    /// The requests of `list`, and the one before it if `unfinished` is its outcome.
    fn of(list: Range<usize>, unfinished: Option<Outcome>) -> Self {
        let mut early: Vec<_> = unfinished.into_iter().map(Some).collect();
        let first = list.start - early.len();
        early.resize(list.end - first, None);
        Self { first, at: first, exits: 0, early }
    }

    /// The outcome of request `n`.
    fn early(&mut self, n: usize) -> &mut Option<Outcome> {
        &mut self.early[n - self.first]
    }
}
