//! `probe`: which KVM this is, and the evidence that its guests run natively.

use super::{Status, line};
use crate::Machine;
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
    line(out, format_args!("module        {}", fingerprint.module));
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
    Status::Clean
}
