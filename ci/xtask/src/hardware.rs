//! Real hardware: what was recorded of it is always checked, and the host's own wherever it can be opened.

use crate::fuzz;
use crate::gate::{Gate, Halt, Verdict};
use std::fs::OpenOptions;

const DEVICE: &str = "/dev/kvm";
const RUNS: &str = "300";

pub(crate) fn traces(gate: &Gate) -> Verdict {
    let folder = gate.root().join("corpus/hw");
    let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut traces: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "trace")).collect();
    traces.sort();
    if traces.is_empty() {
        return Err(Halt::failed("expected recorded traces corpus/hw/*.trace, found none; record some with hw-runner"));
    }
    gate.expect(0, gate.binary("hw-runner")?.arg("verify").args(&traces))?;
    Ok(format!("{} traces", traces.len()))
}

pub(crate) fn kvm(gate: &Gate) -> Verdict {
    if let Err(error) = OpenOptions::new().read(true).write(true).open(DEVICE) {
        return Err(Halt::Skipped(format!("cannot open {DEVICE} for reading and writing: {error}")));
    }
    fuzz::campaign(gate, "kvm", RUNS, "kvm")?;
    Ok(format!("kvm {RUNS}"))
}
