//! One vCPU that carries out lists of accesses and says what became of each.

use super::code::{self, Request};
use super::{layout, mode};
use crate::error::{Doing, MachineError};
use crate::host::memory::Pages;
use crate::host::watchdog::Watchdog;
use crate::kvm::address_space::AddressSpace;
use crate::kvm::stats::Stats;
use gpa_model::{Gpa, Pfn};
use kvm_bindings::{CpuId, KVM_MP_STATE_RUNNABLE, KVM_RUN_X86_SMM, kvm_mp_state, kvm_regs, kvm_sregs, kvm_vcpu_events};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use std::ops::Range;

/// More exits than one access can explain; after so many it counts as failed.
const EXITS_PER_ACCESS: u32 = 8;
/// More faults than one access needs, while nobody else changes anything: after so many KVM has it try again.
const FAULTS_PER_ACCESS: u64 = 64;

/// What became of one access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It found this page identity, or whatever stands in its place.
    Found(Pfn),
    /// It went to user space, which was told this address first.
    Exited(Gpa),
    /// It raised a page fault.
    GuestFault,
    /// KVM gave up on it.
    Failed,
    /// KVM took it for one to memory that is private, or that is not, and found the other.
    MemoryFault { private: bool },
    /// It faulted again and again.
    Retried,
    /// KVM does not let the vCPU go on before entries of its dirty ring are given back.
    RingFull,
}

/// A vCPU of the machine.
#[derive(Debug)]
pub(crate) struct Vcpu {
    fd: VcpuFd,
    number: usize,
    sregs: kvm_sregs,
    /// How often the page tables had been rewritten when CR3 changed last.
    tables: u64,
    /// Which of the two roots CR3 points at.
    root: usize,
    events: kvm_vcpu_events,
    stats: Option<Stats>,
    /// Exits so far. KVM emulates the instruction behind each of them, wherever the rest of the guest runs.
    exits: u64,
    /// The number of the request that the guest goes on with.
    next: usize,
    /// What became of the one before, if its access has come out, and is completed when the guest goes in again.
    unfinished: Option<Outcome>,
}

/// Why `KVM_RUN` returned, without borrowing from the vCPU.
enum Stop {
    Done,
    Mmio(Gpa),
    Gone(&'static str),
    RingFull,
    MemoryFault { private: bool },
    Interrupted,
}

impl Vcpu {
    /// Create vCPU `number`, ready for its first list.
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

    /// Disable its local APIC, which KVM has. While it is enabled, the processor takes whatever leads to the APIC access page for
    /// accesses to the APIC, by which name soever (SDM vol. 3C, 30.4).
    pub(crate) fn disable_local_apic(&mut self) -> Result<(), MachineError> {
        const ENABLE: u64 = 1 << 11;
        self.sregs.apic_base &= !ENABLE;
        self.restart(0)
    }

    /// KVM's counters of this vCPU.
    pub(crate) fn stats(&self) -> Option<&Stats> {
        self.stats.as_ref()
    }

    /// How often the guest came out with an instruction that KVM had to emulate.
    pub(crate) fn exits(&self) -> u64 {
        self.exits
    }

    /// Use page tables that were rewritten `tables` times: if that is news, CR3 changes, which flushes the guest's TLB.
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

    /// Take it into `space`, or leave it there. Its registers stay as they are.
    pub(crate) fn enter_space(&mut self, space: AddressSpace) -> Result<(), MachineError> {
        let smm = u8::from(space == AddressSpace::Smm);
        if self.events.smi.smm == smm {
            return Ok(());
        }
        self.settle()?;
        self.events.smi.smm = smm;
        self.fd.set_vcpu_events(&self.events).doing("take a vCPU into or out of SMM")
    }

    /// Aliases that a mode makes would be right without it, and mean nothing: KVM has to say that the guest was in it.
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

    /// The vCPU of KVM, for a guest of another kind.
    pub(crate) fn fd(&mut self) -> &mut VcpuFd {
        &mut self.fd
    }

    /// Have KVM map a page as if the guest had read it.
    pub(crate) fn pre_fault(&self, gpa: Gpa) -> std::io::Result<()> {
        crate::kvm::ioctl::pre_fault(&self.fd, gpa)
    }

    /// Count exits of such a guest.
    pub(crate) fn count_exits(&mut self, exits: u64) {
        self.exits += exits;
    }

    /// Make all state fresh, to begin with request `n`.
    pub(crate) fn restart(&mut self, n: usize) -> Result<(), MachineError> {
        self.begin(&code::registers(self.number, n))?;
        (self.next, self.unfinished) = (n, None);
        Ok(())
    }

    /// Make all state fresh, to begin with `registers`.
    pub(crate) fn begin(&mut self, registers: &kvm_regs) -> Result<(), MachineError> {
        self.settle()?;
        self.fd.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE }).doing("wake a vCPU")?;
        self.fd.set_vcpu_events(&self.events).doing("reset the events of a vCPU")?;
        self.fd.set_sregs(&self.sregs).doing("reset the special registers of a vCPU")?;
        self.fd.set_regs(registers).doing("reset the registers of a vCPU")
    }

    /// Walk the tables at `root` from now on.
    pub(crate) fn walk_from(&mut self, root: Gpa) -> Result<(), MachineError> {
        mode::use_root(&mut self.sregs, root);
        self.restart(0)
    }

    /// Carry out code at CPL 0, until it says that it is done.
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

    /// KVM completes an instruction that exited when it is entered again, and then overwrites registers that were set in
    /// between. So enter and leave at once.
    fn settle(&mut self) -> Result<(), MachineError> {
        self.fd.set_kvm_immediate_exit(1);
        let result = self.fd.run().map(|_| ());
        self.fd.set_kvm_immediate_exit(0);
        match result {
            Err(error) if error.errno() != libc::EINTR => Err(error).doing("let a vCPU complete its exit"),
            _ => Ok(()),
        }
    }

    /// Faults of the guest that KVM took so far.
    fn faults(&self) -> Option<u64> {
        self.stats.as_ref()?.read("pf_taken")
    }

    /// Carry out `requests`, at most a program's worth, and write what became of each to `outcomes`. Where `may_retry` there is but
    /// one, and KVM may have it fault for as long as it likes.
    ///
    /// A last access that came out is completed with those of the next list, because to enter a guest for nothing else is what costs
    /// most.
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
            code::write_request(own, self.number, n, request);
        }
        code::end_requests(own, self.number, end);
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
                    // The signal may have come when all is done, too.
                    let at = if in_vain { self.at(own, &mut left) } else { None };
                    at.map(|n| (n, Outcome::Retried))
                }
                Stop::Mmio(gpa) => {
                    let n = self.current(own, &mut left, || format!("an exit for {gpa:?}"))?;
                    code::note_exit(own, self.number, n);
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
                // An exit that was seen first is the better answer.
                left.early(n).get_or_insert(outcome);
                left.at = n + 1;
                // Even behind the last it goes on: a guest that died has no tables any more before it is entered again.
                self.restart(n + 1)?;
            }
        }
        let found = |n| Outcome::Found(code::result(own, self.number, n));
        outcomes.clear();
        outcomes.extend((first..end).map(|n| left.early(n).unwrap_or_else(|| found(n))));
        Ok(())
    }

    /// The request the guest is at.
    fn current(&self, own: &Pages, left: &mut Left, why: impl Fn() -> String) -> Result<usize, MachineError> {
        self.at(own, left).ok_or_else(|| MachineError::Exit(why()))
    }

    /// The same, if it is not at the end of its list.
    fn at(&self, own: &Pages, left: &mut Left) -> Option<usize> {
        let end = left.first + left.early.len();
        while left.at < end && code::is_done(own, self.number, left.at) {
            left.at += 1;
        }
        (left.at < end).then_some(left.at)
    }

    fn enter(&mut self) -> Result<Stop, MachineError> {
        const PRIVATE: u64 = kvm_bindings::KVM_MEMORY_EXIT_FLAG_PRIVATE as u64;
        Ok(match self.fd.run() {
            Ok(VcpuExit::IoOut(code::DONE_PORT, _)) => Stop::Done,
            Ok(VcpuExit::MmioRead(gpa, data)) => {
                data.fill(0);
                Stop::Mmio(Gpa::new(gpa))
            }
            Ok(VcpuExit::MmioWrite(gpa, _)) => Stop::Mmio(Gpa::new(gpa)),
            Ok(VcpuExit::Shutdown) => Stop::Gone("a shutdown"),
            Ok(VcpuExit::InternalError) => Stop::Gone("an internal error of KVM"),
            // Or there is no host page: then the access is taken for what it is.
            Ok(VcpuExit::MemoryFault { flags, .. }) => Stop::MemoryFault { private: flags & PRIVATE != 0 },
            Ok(VcpuExit::Intr) => Stop::Interrupted,
            Ok(VcpuExit::Unsupported(kvm_bindings::KVM_EXIT_DIRTY_RING_FULL)) => Stop::RingFull,
            Ok(other) => return Err(MachineError::Exit(format!("{other:?}"))),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => Stop::Interrupted,
            // KVM cannot get at the host page: user space sees that as an error of the access.
            Err(error) if matches!(error.errno(), libc::EFAULT | libc::EHWPOISON) => Stop::Gone("a bad host page"),
            Err(error) => return Err(error).doing("run a vCPU"),
        })
    }
}

/// Progress through one list.
struct Left {
    /// The number of the first request that is not done: one of the list, or the one before it.
    first: usize,
    /// Those before this one are done.
    at: usize,
    /// How often the access there came out.
    exits: u32,
    /// What became of each, if the guest cannot say.
    early: Vec<Option<Outcome>>,
}

impl Left {
    /// All of `list`, and before it the request that `unfinished` became of.
    fn of(list: Range<usize>, unfinished: Option<Outcome>) -> Self {
        let mut early: Vec<_> = unfinished.into_iter().map(Some).collect();
        let first = list.start - early.len();
        early.resize(list.end - first, None);
        Self { first, at: first, exits: 0, early }
    }

    /// What became of request `n`.
    fn early(&mut self, n: usize) -> &mut Option<Outcome> {
        &mut self.early[n - self.first]
    }
}
