//! `probe`: which KVM this is, and whether its guests run natively.

use super::output::line;
use super::status::Status;
use crate::{AliasMethod, Machine, MachineError};
use gpa_model::{Exit, Reclaim, text};
use std::io::Write;

/// Print which KVM this is, and whether guest code runs natively on it, with the counters that prove it
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(out: &mut dyn Write, err: &mut dyn Write) -> Status {
    let mut machine = match Machine::open() {
        Ok(machine) => machine,
        Err(error) => {
            line(err, error);
            return Status::Absent;
        }
    };
    let fingerprint = machine.fingerprint();
    line(out, format_args!("cpu           {}", fingerprint.cpu));
    line(out, format_args!("kernel        {}", fingerprint.kernel));
    line(out, format_args!("module        {}", fingerprint.module));
    line(out, format_args!("parameters    {}", fingerprint.parameters.join(" ")));
    line(out, format_args!("paging        {}", fingerprint.paging));
    line(out, format_args!("maxphyaddr    {}", fingerprint.maxphyaddr));
    line(out, format_args!("capabilities  {}", fingerprint.capabilities.join(" ")));
    let verdict = if fingerprint.native {
        "yes: far fewer instructions were emulated than accesses made, and pages were mapped"
    } else if machine.proof().is_some() {
        "not proven: the counters do not show that accesses went through the MMU; nothing is judged by them"
    } else {
        "not proven: this kernel shows no counters (KVM_GET_STATS_FD); nothing is judged by its answers"
    };
    line(out, format_args!("native        {verdict}"));
    if let Some(proof) = machine.proof() {
        line(out, format_args!("evidence      {}", proof.after.show_since(&proof.before)));
    }
    match internal_memslots(&mut machine) {
        Ok(words) => line(out, format_args!("internal      {words}")),
        Err(error) => line(out, format_args!("internal      unknown: {error}")),
    }
    for alias_method in AliasMethod::ALL {
        alias_method_report(alias_method, out);
    }
    Status::Clean
}

/// A program that begins with every internal memslot that there is.
const INTERNAL: &str = "gpafuzz-program 1\nvm stolen=none vcpus=1 base=0xfede0 flush=works\n\
                       slot p0 create gfn=0xfede0 pages=3 hva=0x20\nslot p1 create gfn=0xfee00 pages=1 hva=0x28\n\
                       slot p2 create gfn=0xfede8 pages=1 hva=0x24\n";

/// Which internal memslots this KVM has.
fn internal_memslots(machine: &mut Machine) -> Result<String, MachineError> {
    let Ok(program) = text::parse(INTERNAL) else { return Ok("unknown".into()) };
    let trace = machine.run(&program)?;
    let found = trace.observations.iter().zip(["task state segment", "APIC access page", "identity map"]);
    let words = found.map(|(exit, name)| match exit {
        Some(Exit::Done) => format!("{name} yes"),
        _ => format!("{name} none"),
    });
    Ok(words.collect::<Vec<_>>().join(", "))
}

/// Describes whether this alias method works here, and which ways to reclaim pages it has.
fn alias_method_report(alias_method: AliasMethod, out: &mut dyn Write) {
    let machine = match Machine::open_with(alias_method) {
        Ok(machine) => machine,
        Err(error) => return line(out, format_args!("\naliases by {alias_method}: unsupported: {error}")),
    };
    let bits: Vec<String> = machine.stealable().iter().map(u8::to_string).collect();
    line(out, format_args!("\naliases by {alias_method}: stolen bits {}", bits.join(" ")));
    let mut way = |name: &str, why: Option<&str>| {
        line(out, format_args!("  {name:<20}{}", why.map_or("yes".into(), |why| format!("unsupported: {why}"))));
    };
    for reclaim in Reclaim::ALL {
        way(reclaim.name(), machine.reclaims().lacking(reclaim));
    }
    way("held-fault", machine.held_faults_lacking());
}
