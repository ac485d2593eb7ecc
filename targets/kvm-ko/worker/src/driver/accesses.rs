//! What the guest does: whole accesses, and those that are held in the middle of their fault.

use super::host_memory::HostMemory;
use super::machine::{HeldFault, Machine, odd};
use super::{Stop, ioctl};
use gpa_model::{Access, Exit, Fault, Gpa, Host};
use kvm_bindings::kvm_pre_fault_memory;
use kvm_ko_worker::kernel::{self, Begun, Entered, Failure, Fd, Kernel, Kind, Point, Thread};

/// Where in a page a word is read or written.
const OFFSET: u64 = 0x40;
/// How many bytes a word has.
const WORD_BYTES: u8 = 4;
/// `KVM_EXIT_INTERNAL_ERROR`: KVM cannot carry the instruction out, as one that is fetched from where there is no memory.
const EXIT_INTERNAL_ERROR: u32 = 17;

impl Machine {
    fn vcpu(&self, vcpu: u8) -> Result<Fd, Stop> {
        self.vcpus.get(usize::from(vcpu)).copied().ok_or_else(|| Stop::Odd(format!("there is no vCPU {vcpu}")))
    }

    /// The next access, with a word that was never written before.
    fn ask(&mut self, gpa: Gpa, access: Access) -> kernel::Access {
        self.values += 1;
        let kind = match access {
            Access::Read => Kind::Read,
            Access::Write => Kind::Write,
            Access::Execute => Kind::Execute,
        };
        kernel::Access { address: gpa.raw() + OFFSET, linear: false, kind, value: self.values, size: WORD_BYTES }
    }

    pub(super) fn access(
        &mut self,
        kernel: &Kernel,
        memory: &mut HostMemory,
        host: &Host,
        vcpu: u8,
        gpa: Gpa,
        access: Access,
    ) -> Result<Exit, Stop> {
        let (fd, asked) = (self.vcpu(vcpu)?, self.ask(gpa, access));
        let entered = kernel.enter(fd, asked);
        self.exit(kernel, memory, host, fd, entered, asked.value)
    }

    /// Begin a fault, and hold it with its page looked up. What needs none is over at once.
    pub(super) fn begin_fault(
        &mut self,
        kernel: &'static Kernel,
        memory: &mut HostMemory,
        host: &Host,
        vcpu: u8,
        gpa: Gpa,
        access: Access,
    ) -> Result<Exit, Stop> {
        let (fd, asked) = (self.vcpu(vcpu)?, self.ask(gpa, access));
        match kernel.begin(&[Point::PageLookup], move |kernel| kernel.enter(fd, asked)) {
            Begun::Held(_, Point::Blocked) => Err(Stop::Odd("a fault waits before its page is looked up".into())),
            Begun::Held(thread, _) => {
                self.held[usize::from(vcpu)] = Some(HeldFault { thread, value: asked.value });
                // What it holds keeps its name, whatever becomes of it.
                memory.learn(kernel, host);
                Ok(Exit::Pending)
            }
            Begun::Finished(entered) => self.exit(kernel, memory, host, fd, entered, asked.value),
        }
    }

    pub(super) fn end_fault(
        &mut self,
        kernel: &Kernel,
        memory: &mut HostMemory,
        host: &Host,
        vcpu: u8,
    ) -> Result<Exit, Stop> {
        let fd = self.vcpu(vcpu)?;
        let Some(fault) = self.held[usize::from(vcpu)].take() else {
            return Err(Stop::Odd(format!("vCPU {vcpu} is in no fault")));
        };
        let entered = Self::resume(kernel, fault.thread)?;
        self.exit(kernel, memory, host, fd, entered, fault.value)
    }

    /// Let a held access go on until it is over.
    pub(super) fn resume(kernel: &Kernel, thread: Thread) -> Result<Entered, Stop> {
        match kernel.resume::<Entered>(thread, &[]) {
            Begun::Finished(entered) => Ok(entered),
            Begun::Held(..) => Err(Stop::Odd("an access waits for what does not come".into())),
        }
    }

    /// What an access came to, in the words of the model.
    fn exit(
        &mut self,
        kernel: &Kernel,
        memory: &mut HostMemory,
        host: &Host,
        fd: Fd,
        entered: Entered,
        value: u64,
    ) -> Result<Exit, Stop> {
        Ok(match entered {
            Entered::Memory { pfn, .. } => Exit::Memory(memory.name(kernel, host, pfn)),
            Entered::Emulated { .. } => match memory.holding(kernel, host, OFFSET, value) {
                Some(pfn) => Exit::Emulated(pfn),
                None => Exit::Error,
            },
            Entered::Mmio { gpa, .. } => {
                // The instruction is completed, so that the vCPU is ready for the next.
                if kernel.finish_mmio(fd, 0) == Entered::Dead {
                    return Err(Stop::Dead);
                }
                let page = Gpa::from_page(Gpa::new(gpa).page());
                // An address that no access of a program names is certainly wrong.
                if self.vm.locate(page).is_some() { Exit::Mmio(page) } else { Exit::Error }
            }
            Entered::GuestFault { .. } => Exit::GuestFault(Fault::NotPresent),
            Entered::MemoryFault { .. } => Exit::MemoryFault,
            Entered::RingFull => Exit::RingFull,
            Entered::Retry => Exit::Retry,
            Entered::Exit { reason: EXIT_INTERNAL_ERROR } | Entered::Errno(libc::EFAULT | libc::EHWPOISON) => {
                Exit::Error
            }
            Entered::Exit { reason } => return Err(Stop::Odd(format!("exit {reason} of KVM_RUN"))),
            Entered::Errno(errno) => return Err(Stop::Odd(format!("errno {errno} of KVM_RUN"))),
            Entered::Dead => return Err(Stop::Dead),
        })
    }

    /// Have a page mapped ahead.
    pub(super) fn prefault(&mut self, kernel: &Kernel, vcpu: u8, gpa: Gpa) -> Result<Exit, Stop> {
        let mut range = kvm_pre_fault_memory { gpa: gpa.raw(), size: Gpa::from_page(1).raw(), ..Default::default() };
        let fd = self.vcpu(vcpu)?;
        match kernel.ioctl_with(fd, ioctl::PRE_FAULT_MEMORY, &mut range) {
            Ok(_) => Ok(Exit::Done),
            Err(Failure::Errno(libc::ENOENT)) => Ok(Exit::NotFound),
            Err(Failure::Errno(libc::EFAULT | libc::EHWPOISON)) => Ok(Exit::Error),
            Err(Failure::Errno(libc::EINVAL)) => Ok(Exit::Refused),
            Err(Failure::Errno(libc::EINTR | libc::EAGAIN)) => Ok(Exit::Retry),
            Err(failure) => Err(odd("prefault")(failure)),
        }
    }
}
