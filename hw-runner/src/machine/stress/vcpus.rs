//! The vCPUs' side of stress: the names that each goes through, and its thread.

use super::{FRAMES_AT, PAGES, SHOWN};
use crate::error::{Doing, MachineError};
use crate::guest::assembly::{self, COMPLAINT_PORT};
use crate::guest::names::{self, Entry};
use crate::guest::spinner::{self, Complaint, Name};
use crate::guest::vcpu::Vcpu;
use crate::host::memory::Pages;
use crate::host::watchdog::Watchdog;
use crate::kvm::address_space::AddressSpace;
use crate::kvm::alias_method::AliasMethod;
use gpa_model::{Access, VmConfig};
use kvm_ioctls::VcpuExit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The result of one vCPU.
#[derive(Debug, Default)]
pub(super) struct Spun {
    pub(super) exits: u64,
    pub(super) repeated: u64,
    pub(super) complaints: Vec<Complaint>,
}

/// The address space of vCPU `number`. vCPUs alternate between address spaces.
pub(super) fn space_of(alias_method: AliasMethod, number: usize) -> AddressSpace {
    let spaces = alias_method.address_spaces();
    spaces[number % spaces.len()]
}

/// Every name of every frame that vCPU `number` can reach, each with another name of the same frame.
pub(super) fn names(vm: &VmConfig, window: usize, alias_method: AliasMethod, number: usize) -> Vec<Name> {
    let space = space_of(alias_method, number);
    let reached = |alias: &usize| alias_method.address_space(*alias) == space;
    let aliases: Vec<usize> = (0..vm.stolen().alias_count()).filter(reached).collect();
    let others = aliases.iter().cycle().skip(1);
    let frames = FRAMES_AT.into_iter().flat_map(|at| at..at + PAGES);
    let name = |frame| {
        let pairs = aliases.iter().zip(others.clone());
        let address =
            move |alias, access| names::name_by(Entry::of(alias_method, alias, access), vm, window, alias, frame);
        pairs.map(move |(&alias, &other)| Name {
            frame,
            alias,
            address: address(alias, Access::Write),
            other: address(other, Access::Read),
        })
    };
    frames.flat_map(name).take(spinner::NAMES).collect()
}

/// Runs the guest of `vcpu` until it is told to stop.
pub(super) fn spin(vcpu: &mut Vcpu, own: &Pages, limit: Duration, failed: &AtomicBool) -> Result<Spun, MachineError> {
    let result = Watchdog::with_limit(limit).doing("set up the watchdog").and_then(|mut watchdog| {
        watchdog.arm().doing("arm the watchdog")?;
        spin_watched(vcpu, own, &watchdog, failed)
    });
    if result.is_err() {
        failed.store(true, Ordering::Relaxed);
    }
    result
}

fn spin_watched(vcpu: &mut Vcpu, own: &Pages, watchdog: &Watchdog, failed: &AtomicBool) -> Result<Spun, MachineError> {
    let mut spun = Spun::default();
    let number = vcpu.number();
    loop {
        match vcpu.fd().run() {
            Ok(VcpuExit::IoOut(assembly::DONE_PORT, _)) => break,
            Ok(VcpuExit::IoOut(COMPLAINT_PORT, _)) => spun.complaints.push(spinner::complaint(own, number)),
            Ok(VcpuExit::MmioRead(_, data)) => {
                data.fill(u8::MAX);
                spun.exits += 1;
            }
            Ok(VcpuExit::MmioWrite(..)) => spun.exits += 1,
            // The host is reclaiming the page, which is briefly inaccessible.
            Err(error) if error.errno() == libc::EFAULT => spun.repeated += 1,
            Ok(VcpuExit::Intr) => {}
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {}
            Ok(other) => return Err(MachineError::Exit(format!("{other:?}"))),
            Err(error) => return Err(error).doing("run a vCPU"),
        }
        if spun.complaints.len() >= SHOWN || failed.load(Ordering::Relaxed) {
            // More complaints of this vCPU would add nothing.
            failed.store(true, Ordering::Relaxed);
            break;
        }
        if watchdog.expired() {
            return Err(MachineError::Hung(watchdog.limit()));
        }
    }
    Ok(spun)
}
