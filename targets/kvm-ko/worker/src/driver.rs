//! The driver: carries out each op of a program on real KVM, and writes down what came of it.
//!
//! | file | what is there |
//! |---|---|
//! | `setup` | what the supervisor wants, and what this worker can do |
//! | `machine` | one VM and its vCPUs |
//! | `memslots` | a program's memslots as those of KVM, and the dirty log |
//! | `accesses` | what the guest does, whole or held in the middle |
//! | `host_memory` | what the host does to its pages, and what the pages are called |
//! | `requests` | what other parts of a kernel ask KVM for |
//! | `sight` | the tables under every name after each op |
//! | `structure` | shadow pages and the reverse map, at the end |
//! | `notes` | flushes, alarms and the kernel's log |

mod accesses;
mod host_memory;
mod ioctl;
mod machine;
mod memslots;
mod notes;
mod requests;
mod setup;
mod sight;
mod structure;

pub(crate) use setup::Setup;

use gpa_model::{Exit, Host, Op, SlotChange, VmConfig};
use host_memory::HostMemory;
use kvm_ko::serve::Executor;
use kvm_ko::wire::Answer;
use kvm_ko_worker::kernel::Kernel;
use machine::Machine;
use notes::Notes;
use sight::Sight;
use std::fs::File;
use std::mem::ManuallyDrop;

/// Carries programs out, one VM after the other.
pub(crate) struct Driver {
    kernel: &'static Kernel,
    setup: Setup,
    machine: Option<Machine>,
    memory: HostMemory,
    sight: Sight,
    notes: Notes,
}

/// Why an op has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The kernel died; its alarm says of what.
    Dead,
    /// KVM refused something that it must not refuse, or did something that this driver does not understand.
    Odd(String),
}

impl Driver {
    /// On `kernel`, whose words go to `log`.
    pub(crate) fn new(kernel: &'static Kernel, setup: &Setup, log: ManuallyDrop<File>) -> Self {
        let (memory, sight, notes) = (HostMemory::default(), Sight::default(), Notes::new(log));
        Self { kernel, setup: setup.clone(), machine: None, memory, sight, notes }
    }

    fn step(&mut self, host: &Host, op: &Op) -> Result<Exit, Stop> {
        let Some(machine) = &mut self.machine else { return Err(Stop::Odd("there is no VM".into())) };
        let kernel = self.kernel;
        match *op {
            Op::Slot { id, change } => machine.change_slot(kernel, id, change),
            Op::Access { vcpu, gpa, access } => machine.access(kernel, &mut self.memory, host, vcpu, gpa, access),
            Op::FaultBegin { vcpu, gpa, access } => {
                machine.begin_fault(kernel, &mut self.memory, host, vcpu, gpa, access)
            }
            Op::FaultEnd { vcpu } => machine.end_fault(kernel, &mut self.memory, host, vcpu),
            Op::Prefault { vcpu, gpa } => machine.prefault(kernel, vcpu, gpa),
            Op::Unmap { range, .. } => self.memory.replace(kernel, host, range),
            Op::UnmapBegin { range, .. } => {
                let begun = self.memory.begin(kernel, range);
                // What is being taken away has been taken apart.
                self.memory.map(kernel, host);
                begun
            }
            // The window is closed by now, and the host says which pages have changed.
            Op::UnmapEnd { .. } => match host.changed() {
                Some(range) => self.memory.end(kernel, host, range),
                None => Ok(Exit::Done),
            },
            Op::Collapse { range } => self.memory.replace(kernel, host, range),
            Op::ProtNone { range } => self.memory.forbid(kernel, range),
            Op::Age { range } => self.memory.age(kernel, range, machine.values % 2 == 0),
            Op::WriteProtect { gfn } => machine.write_protect(kernel, gfn),
            Op::WriteTrack { gfn } => machine.track(kernel, gfn, true),
            Op::WriteUntrack { gfn } => machine.track(kernel, gfn, false),
            Op::ZapBegin { gfn, pages, .. } => machine.begin_zap(kernel, gfn, pages),
            Op::ZapEnd => machine.end_zap(kernel),
            Op::DirtyGet { id } => machine.dirty_get(kernel, id),
            Op::DirtyClear { id, gfn, pages } => machine.dirty_clear(kernel, id, gfn, pages),
            _ => Err(Stop::Odd("an op that was not offered".into())),
        }
    }
}

impl Executor for Driver {
    fn begin(&mut self, vm: &VmConfig, answer: &mut Answer<'_>) {
        self.notes.begin();
        self.memory.begin_program(self.kernel, vm);
        self.sight.begin();
        match Machine::new(self.kernel, vm, &self.setup) {
            Ok(machine) => self.machine = Some(machine),
            Err(stop) => self.notes.stopped(&stop, answer),
        }
        self.notes.take(self.kernel, answer);
    }

    fn can(&self, op: &Op) -> bool {
        let Some(machine) = &self.machine else { return true };
        match op {
            // Where writes are tracked from outside, KVM moves no memslot. A fault in the middle is a reader of the memslots, and a change
            // waits for all of them.
            Op::Slot { change: SlotChange::Move { .. }, .. } if machine.tracks => false,
            Op::Slot { .. } => !machine.any_held(),
            // Where the vCPU's root is obsolete, or a page is being invalidated, `KVM_PRE_FAULT_MEMORY` goes round until a signal comes.
            Op::Prefault { vcpu, .. } => {
                let fd = machine.vcpus.get(usize::from(*vcpu));
                !self.memory.is_invalidating() && fd.is_none_or(|fd| self.kernel.flush_pending(*fd) == Ok(false))
            }
            _ => true,
        }
    }

    fn carry_out(&mut self, host: &Host, op: &Op, answer: &mut Answer<'_>) -> Option<Exit> {
        let exit = self.step(host, op);
        self.notes.take(self.kernel, answer);
        let exit = match exit {
            Ok(exit) => exit,
            Err(stop) => {
                self.notes.stopped(&stop, answer);
                return None;
            }
        };
        if let Some(machine) = &self.machine {
            let looked = self.sight.look(self.kernel, machine, &mut self.memory, host, answer);
            let owed = looked.and_then(|lost| self.notes.flushes_owed(self.kernel, machine, lost, answer));
            if let Err(stop) = owed {
                self.notes.stopped(&stop, answer);
                return None;
            }
        }
        Some(exit)
    }

    fn end(&mut self, answer: &mut Answer<'_>) {
        if let Some(machine) = self.machine.take() {
            let looked = if self.setup.has_rmap() { structure::look(self.kernel, &machine, answer) } else { Ok(()) };
            if let Err(stop) = looked.and_then(|()| machine.close(self.kernel)) {
                self.notes.stopped(&stop, answer);
            }
        }
        // If it dies of that, there is an alarm.
        let _ = self.kernel.reset();
        self.notes.take(self.kernel, answer);
    }
}
