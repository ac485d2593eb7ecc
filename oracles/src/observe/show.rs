//! Exits, flushes and sets of frames in the words of the report.

use gpa_model::text::print_gpa;
use gpa_model::{Allowed, Exit, Fault, Flush, FrameSet, VmConfig};

/// An exit in the words of the report.
pub(crate) fn show_exit(vm: &VmConfig, exit: &Exit) -> String {
    match exit {
        Exit::Memory(pfn) => pfn.to_string(),
        Exit::Emulated(pfn) => format!("emulated on {pfn}"),
        Exit::Mmio(gpa) => format!("mmio {}", print_gpa(vm, *gpa)),
        Exit::Dirty(frames) => format!("dirty {}", show_frames(vm, *frames)),
        Exit::Young(young) => if *young { "young" } else { "idle" }.into(),
        Exit::GuestFault(fault) => format!("guest-fault {}", fault.name()),
        Exit::Translated(gpa) => format!("translated to {}", print_gpa(vm, *gpa)),
        Exit::PageReady(gpa) => format!("page-ready {}", print_gpa(vm, *gpa)),
        Exit::Done
        | Exit::Retry
        | Exit::Interrupted
        | Exit::Pending
        | Exit::Error
        | Exit::MemoryFault
        | Exit::NotFound
        | Exit::Refused
        | Exit::RingFull
        | Exit::PageNotPresent
        | Exit::Halted
        | Exit::Unsupported => exit.name().into(),
    }
}

pub(crate) fn show_allowed(vm: &VmConfig, allowed: &Allowed) -> Vec<String> {
    let mut parts = Vec::new();
    if allowed.done {
        parts.push("done".to_owned());
    }
    parts.extend(allowed.memory.map(|pfn| pfn.to_string()));
    parts.extend(allowed.emulated.map(|pfn| format!("emulated on {pfn}")));
    parts.extend(allowed.mmio.map(|gpa| show_exit(vm, &Exit::Mmio(gpa))));
    if let Some((must, may)) = allowed.dirty {
        parts.push(if must == may {
            format!("dirty {}", show_frames(vm, must))
        } else {
            format!("dirty from {} to {}", show_frames(vm, must), show_frames(vm, may))
        });
    }
    parts.extend(show_walk(vm, allowed));
    parts.extend(allowed.page_ready.iter().map(|(gpa, _)| show_exit(vm, &Exit::PageReady(*gpa))));
    let words = [
        (allowed.page_not_present, "page-not-present"),
        (allowed.halted, "halted"),
        (allowed.pending, "pending"),
        (allowed.retry, "retry"),
        (allowed.young, "young or idle"),
        (allowed.error, "error"),
        (allowed.memory_fault, Exit::MemoryFault.name()),
        (allowed.not_found, "not-found"),
        (allowed.refused, "refused"),
        (allowed.ring_full, "ring-full"),
        (allowed.retry && allowed.interruptible, "interrupted"),
    ];
    parts.extend(words.iter().filter(|(allowed, _)| *allowed).map(|(_, word)| (*word).to_owned()));
    let others = allowed.elsewhere.iter().map(|exit| show_exit(vm, exit)).filter(|shown| !parts.contains(shown));
    let others: Vec<String> = others.collect();
    parts.extend(others);
    parts
}

/// Where a walk of the guest's tables may lead.
pub(crate) fn show_walk(vm: &VmConfig, allowed: &Allowed) -> Vec<String> {
    let flux = allowed.table_in_flux.then_some(Fault::NotPresent).filter(|fault| allowed.guest_fault != Some(*fault));
    let faults = [allowed.guest_fault, flux].into_iter().flatten().map(Exit::GuestFault);
    let exits = allowed.translated.map(Exit::Translated).into_iter().chain(faults);
    exits.map(|exit| show_exit(vm, &exit)).collect()
}

pub(crate) fn show_frames(vm: &VmConfig, frames: FrameSet) -> String {
    if frames.is_empty() {
        return "nothing".into();
    }
    let frames: Vec<String> = frames.iter().map(|frame| vm.gfn(frame).to_string()).collect();
    format!("{{{}}}", frames.join(" "))
}

pub(crate) fn show_flush(vm: &VmConfig, flush: &Flush) -> String {
    match flush {
        Flush::All { vcpus } if vcpus.minus(gpa_model::VcpuSet::first(vm.vcpus())) == *vcpus => {
            "flush of nobody".into()
        }
        Flush::All { vcpus } if gpa_model::VcpuSet::first(vm.vcpus()).minus(*vcpus).is_empty() => "flush all".into(),
        Flush::All { vcpus } => {
            let vcpus: Vec<String> = vcpus.iter().map(|vcpu| format!("v{vcpu}")).collect();
            format!("flush all of {}", vcpus.join(" "))
        }
        Flush::Range { gpa, pages, ok } => {
            let outcome = if *ok { "" } else { ": the back-end failed" };
            format!("flush {} pages={pages}{outcome}", print_gpa(vm, *gpa))
        }
    }
}
