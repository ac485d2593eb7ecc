//! Open files of KVM, and calls of them.

use super::{Function, Kernel};
use crate::alarm::{self, AlarmKind};
use crate::context;
use crate::cpu;
use crate::env;
use crate::loader;
use crate::memory::{heap, host};
use std::collections::BTreeMap;
use std::fmt;

/// Why a request gave no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// KVM refused, with this `errno`, above 0.
    Errno(i32),
    /// The kernel died; [`Kernel::take_events`] ends with the alarm. Nothing more can be asked of it: end the process.
    Dead,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Errno(errno) => std::io::Error::from_raw_os_error(*errno).fmt(f),
            Failure::Dead => f.write_str("the kernel died"),
        }
    }
}

impl std::error::Error for Failure {}

/// An open file of KVM: the device itself, a VM, a vCPU or another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fd(pub u32);

/// `/dev/kvm`.
pub const SYSTEM: Fd = Fd(0);

/// `_IO(KVMIO, 0x01)`, `_IO(KVMIO, 0x41)`.
const CREATE_VM: u64 = 0xae01;
const CREATE_VCPU: u64 = 0xae41;
/// The largest errno.
const ERRNO_MAX: i64 = 4095;

impl Kernel {
    /// `ioctl(2)`; what stands for a pointer is an address in this process.
    ///
    /// # Errors
    /// As KVM refuses it.
    pub fn ioctl(&self, file: Fd, request: u64, argument: u64) -> Result<u64, Failure> {
        context::forget_offers();
        let result = self.call(Function::Ioctl, &[file.0.into(), request, argument])?;
        self.settle();
        errno(result)
    }

    /// `ioctl(2)` with a structure.
    ///
    /// # Errors
    /// As KVM refuses it.
    pub fn ioctl_with<T>(&self, file: Fd, request: u64, argument: &mut T) -> Result<u64, Failure> {
        self.ioctl(file, request, std::ptr::from_mut(argument) as u64)
    }

    /// `close(2)`.
    ///
    /// # Errors
    /// If it is not open, or the kernel dies.
    pub fn close(&self, file: Fd) -> Result<(), Failure> {
        let result = self.call(Function::Close, &[file.0.into()])?;
        self.settle();
        errno(result).map(drop)
    }

    /// A new VM of type `kind`, 0 for the usual one. What warns once a boot may warn again.
    ///
    /// # Errors
    /// As KVM refuses it.
    pub fn create_vm(&self, kind: u64) -> Result<Fd, Failure> {
        loader::with_modules(loader::rearm_once);
        heap::mark();
        self.ioctl(SYSTEM, CREATE_VM, kind).map(|fd| Fd(fd as u32))
    }

    /// vCPU `id` of a VM. It cannot run before [`Kernel::start_vcpu`].
    ///
    /// # Errors
    /// As KVM refuses it.
    pub fn create_vcpu(&self, vm: Fd, id: u32) -> Result<Fd, Failure> {
        self.ioctl(vm, CREATE_VCPU, id.into()).map(|fd| Fd(fd as u32))
    }

    /// The host becomes what it was at first, and the heap is examined: all files must be closed, and no thread held. Objects that are
    /// left are an alarm, and so is memory that was written while it was free.
    ///
    /// # Errors
    /// If the kernel dies.
    pub fn reset(&self) -> Result<(), Failure> {
        self.call(Function::RunWorks, &[])?;
        self.settle();
        heap::verify();
        env::report_damage();
        if heap::live() > self.idle_objects {
            alarm::raise(AlarmKind::Leak, leaks());
        }
        cpu::forget();
        cpu::drop_all();
        host::reset();
        Ok(())
    }

    /// What waits for readers of RCU is done, as far as there are none.
    pub(super) fn settle(&self) {
        if context::current() == 0 && !alarm::is_dead() {
            env::run_callbacks();
        }
    }
}

/// What the kernel gives, as an `int` or a `long` that is below 0 for an error.
pub(super) fn errno(result: u64) -> Result<u64, Failure> {
    let value = result as i64;
    if (-ERRNO_MAX..0).contains(&value) { Err(Failure::Errno(-value as i32)) } else { Ok(result) }
}

/// Who wanted the objects that are left.
fn leaks() -> String {
    let mut callers: BTreeMap<String, u32> = BTreeMap::new();
    for caller in heap::leaked() {
        *callers.entry(loader::name_of(caller)).or_default() += 1;
    }
    let list: Vec<String> = callers.iter().map(|(name, count)| format!("{count} of {name}")).collect();
    format!("objects are left after all files were closed: {}", list.join(", "))
}
