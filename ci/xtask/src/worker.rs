//! The stage that fuzzes a kernel's own KVM in a worker process, and looks whether a fault that is planted into it is found.

use crate::fuzz;
use crate::gate::{Gate, Halt, Verdict};

/// The targets that must be clean.
const TARGETS: [&str; 4] = ["kvm-ko", "kvm-ko-rmap", "kvm-ko-ept", "kvm-ko-ept-rmap"];
const RUNS: &str = "1000";
/// The first of them without the function that asks vCPUs to flush.
const PLANTED: &str = "kvm-ko:without-kvm_flush_remote_tlbs";

/// A fixed-seed campaign on each. A kernel is prepared at the first use; where it cannot be, that is a reason to skip.
pub(crate) fn smoke(gate: &Gate) -> Verdict {
    for target in TARGETS {
        match fuzz::campaign(gate, target, RUNS, target) {
            Ok(_) => {}
            Err(Halt::Failed(why)) if why.contains("cannot be used here") => {
                let line = why.lines().find(|line| line.contains("cannot be used here")).unwrap_or_default();
                return Err(Halt::Skipped(line.trim().to_owned()));
            }
            Err(halt) => return Err(halt),
        }
    }
    let mut command = gate.binary("gpafuzz")?;
    command.args(["fuzz", "--target", PLANTED, "--runs", RUNS, "--seed", "1", "--out"]);
    gate.expect(1, command.arg(gate.scratch("planted")?.join("out")))?;
    Ok(format!("{} {RUNS}; found {PLANTED}", TARGETS.join(", ")))
}
