//! What happens at the same time: interleavings of the locks and atomics of `kvm-mmu`, and its memory accesses.

use crate::gate::{Gate, Halt, Verdict};

/// The test that runs with real threads in the stage `tests`.
const TEST: [&str; 5] = ["--package", "kvm-mmu", "--test", "threads", "--no-fail-fast"];

/// Once more under a scheduler that tries interleavings from a seed. Its locks replace the standard library's throughout the
/// crate, so it is a build of its own.
pub(crate) fn races(gate: &Gate) -> Verdict {
    let mut command = gate.cargo(&["test", "--release", "--target-dir"]);
    command.arg(gate.logs().join("shuttle")).args(TEST).env("RUSTFLAGS", "--cfg shuttle");
    gate.expect(0, &mut command)?;
    Ok(String::new())
}

/// Under an interpreter that sees undefined behaviour and data races.
pub(crate) fn miri(gate: &Gate) -> Verdict {
    if gate.status(&mut gate.cargo(&["miri", "--version"]))? != 0 {
        let why = "`cargo miri` is not there; it comes with a nightly toolchain: rustup +nightly component add miri";
        return Err(Halt::Skipped(why.into()));
    }
    let mut command = gate.cargo(&["miri", "test", "--target-dir"]);
    command.arg(gate.logs().join("miri")).args(TEST);
    gate.expect(0, &mut command)?;
    Ok(String::new())
}
