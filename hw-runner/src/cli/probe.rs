//! `probe`: which KVM this is, and the evidence that its guests run natively.

use super::{Status, line};
use crate::{Machine, Realisation};
use gpa_model::Driver;
use std::io::Write;

pub(super) fn run(out: &mut dyn Write, err: &mut dyn Write) -> Status {
    let machine = match Machine::open() {
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
    for realisation in Realisation::ALL {
        one_realisation(realisation, out);
    }
    Status::Clean
}

/// Whether aliases can be made so, and by what means pages can be taken away then.
fn one_realisation(realisation: Realisation, out: &mut dyn Write) {
    let machine = match Machine::open_with(realisation) {
        Ok(machine) => machine,
        Err(error) => return line(out, format_args!("\naliases by {realisation}: unsupported: {error}")),
    };
    let bits: Vec<String> = machine.stealable().iter().map(u8::to_string).collect();
    line(out, format_args!("\naliases by {realisation}: stolen bits {}", bits.join(" ")));
    let mut way = |name: &str, why: Option<&str>| {
        line(out, format_args!("  {name:<20}{}", why.map_or("yes".into(), |why| format!("unsupported: {why}"))));
    };
    for driver in Driver::ALL {
        way(driver.name(), machine.drivers().lacking(driver));
    }
    way("held-fault", machine.holds_no_faults());
}
