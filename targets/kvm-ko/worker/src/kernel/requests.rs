//! What other parts of a kernel ask KVM for: write tracking, write protection, zapping, recovery of huge pages; and the rmap.

use super::files::errno;
use super::{Failure, Fd, Function, Kernel};
use crate::alarm::{self, Event};
use crate::env::functions;
use crate::loader::Answer;

/// An entry of the rmap: `struct worker_rmap`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Rmap {
    /// The first frame that it is listed under.
    pub gfn: u64,
    /// The physical address of the SPTE.
    pub spte: u64,
    /// 1 for 4 KiB, 2 for 2 MiB, 3 for 1 GiB.
    pub level: u32,
    /// The memslot, with the address space in the bits above 15.
    pub slot: u32,
}

/// Room for the rmap of a memslot at first.
const RMAPS: usize = 128;

pub(super) fn answers() -> impl IntoIterator<Item = (&'static str, Answer)> {
    functions! { "worker_tracked" => tracked as extern "C" fn(u64, u32) }
}

extern "C" fn tracked(gpa: u64, bytes: u32) {
    alarm::note(Event::Tracked { gpa, bytes });
}

impl Kernel {
    /// Begin, or end, to be told of writes to tracked frames ([`Event::Tracked`]). It has to end before the VM is closed.
    ///
    /// # Errors
    /// As KVM refuses it.
    pub fn track_vm(&self, vm: Fd, on: bool) -> Result<(), Failure> {
        errno(self.call(Function::TrackVm, &[vm.0.into(), on.into()])? as i32 as u64).map(drop)
    }

    /// Begin, or end, to track a frame of address space 0 (`kvm_write_track_add_gfn()`).
    ///
    /// # Errors
    /// As KVM refuses it: `EINVAL` without a memslot.
    pub fn track(&self, vm: Fd, gfn: u64, on: bool) -> Result<(), Failure> {
        let result = self.call(Function::Track, &[vm.0.into(), gfn, on.into()])?;
        self.settle();
        errno(result as i32 as u64).map(drop)
    }

    /// Write-protect a frame (`kvm_mmu_slot_gfn_write_protect()`): whether anything was writable.
    ///
    /// # Errors
    /// `ENOENT` without a memslot.
    pub fn write_protect(&self, vm: Fd, address_space: u32, gfn: u64) -> Result<bool, Failure> {
        let result = self.call(Function::WriteProtect, &[vm.0.into(), address_space.into(), gfn])?;
        self.settle();
        errno(result as i32 as u64).map(|found| found != 0)
    }

    /// Zap what maps frames, as when the guest changes their memory type (`kvm_zap_gfn_range()`).
    ///
    /// # Errors
    /// If the kernel died.
    pub fn zap_range(&self, vm: Fd, gfn: u64, pages: u64) -> Result<(), Failure> {
        self.call(Function::ZapRange, &[vm.0.into(), gfn, pages])?;
        self.settle();
        Ok(())
    }

    /// Write to guest memory as the kernel does for itself (`kvm_write_guest()`).
    ///
    /// # Errors
    /// `EFAULT` where there is no memory.
    pub fn write_guest(&self, vm: Fd, gpa: u64, data: &[u8]) -> Result<(), Failure> {
        let arguments = [vm.0.into(), gpa, data.as_ptr() as u64, data.len() as u64];
        errno(self.call(Function::WriteGuest, &arguments)? as i32 as u64).map(drop)
    }

    /// Let the time pass after which KVM zaps what was mapped small because it is executed, and let it do so: whether the thread that
    /// does it exists, which it does once a vCPU has run.
    ///
    /// # Errors
    /// If the kernel died.
    pub fn recover_huge_pages(&self, vm: Fd) -> Result<bool, Failure> {
        let found = self.call(Function::RecoverHugePages, &[vm.0.into()])?;
        self.settle();
        Ok(found as u8 != 0)
    }

    /// All of a memslot's rmap; `slot` has the address space in the bits above 15.
    ///
    /// # Errors
    /// If the kernel died.
    pub fn rmap(&self, vm: Fd, slot: u32) -> Result<Vec<Rmap>, Failure> {
        let mut rmaps = vec![Rmap::default(); RMAPS];
        loop {
            let arguments = [vm.0.into(), slot.into(), rmaps.as_mut_ptr() as u64, rmaps.len() as u64];
            let found = self.call(Function::Rmap, &arguments)? as u32 as usize;
            let enough = found <= rmaps.len();
            rmaps.resize(found, Rmap::default());
            if enough {
                return Ok(rmaps);
            }
        }
    }
}
