//! Campaigns with a fixed seed: clean on every target, and the same every time.

use crate::gate::{Gate, Halt, Verdict};
use serde_json::Value;
use std::path::Path;

/// Targets that run anywhere, with the number of programs. Known findings count as clean.
const CAMPAIGNS: [(&str, &str); 5] =
    [("kvm-mmu", "20000"), ("kvm-mmu-no-ad", "5000"), ("kvm-mmu-npt", "5000"), ("tdp-mmu", "5000"), ("rfc-v3", "5000")];

/// Every program of the standard scopes. Which mutants die in them is a snapshot of the test `exhaust` of `kvm-mmu`.
pub(crate) fn exhaust(gate: &Gate) -> Verdict {
    let dir = gate.scratch("exhaust")?;
    gate.expect(0, gate.binary("gpafuzz")?.arg("exhaust").arg("--out").arg(dir.join("out")))?;
    Ok(String::new())
}

/// Every target once, the first one twice.
pub(crate) fn clean(gate: &Gate) -> Verdict {
    let mut summaries = Vec::new();
    for (target, runs) in CAMPAIGNS {
        summaries.push(campaign(gate, target, runs, target)?);
    }
    let (target, runs) = CAMPAIGNS[0];
    same(&summaries[0], &campaign(gate, target, runs, "again")?)?;
    Ok(CAMPAIGNS.map(|(target, runs)| format!("{target} {runs}")).join(", "))
}

/// Run `gpafuzz fuzz` with seed 1, require exit status 0, and return its summary.
pub(crate) fn campaign(gate: &Gate, target: &str, runs: &str, name: &str) -> Result<String, Halt> {
    let dir = gate.scratch(name)?;
    let (out, summary) = (dir.join("out"), dir.join("summary.json"));
    let mut command = gate.binary("gpafuzz")?;
    command.args(["fuzz", "--target", target, "--runs", runs, "--seed", "1"]);
    command.arg("--out").arg(out).arg("--summary").arg(&summary);
    gate.expect(0, &mut command)?;
    read(&summary)
}

fn read(path: &Path) -> Result<String, Halt> {
    std::fs::read_to_string(path).map_err(|e| {
        Halt::failed(format!("expected the campaign to write its summary to {}, found: {e}", path.display()))
    })
}

/// Compare what two summaries say apart from time.
fn same(first: &str, second: &str) -> Result<(), Halt> {
    let untimed = |text| {
        let summary: Value = serde_json::from_str(text).unwrap_or_default();
        let part = summary.get("untimed").map(|part| format!("{part:#}"));
        part.ok_or_else(|| Halt::failed("expected a member `untimed` in the summary of a campaign, found none"))
    };
    let (first, second) = (untimed(first)?, untimed(second)?);
    if first == second {
        return Ok(());
    }
    let differing = first.lines().zip(second.lines()).filter(|(a, b)| a != b).take(10);
    let lines: Vec<String> =
        differing.map(|(a, b)| format!("  first:  {}\n  second: {}", a.trim(), b.trim())).collect();
    Err(Halt::failed(format!("expected two campaigns with seed 1 to agree in `untimed`, found:\n{}", lines.join("\n"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_campaign_that_differs_is_caught_and_time_does_not_count() {
        let summary = |seconds, found| format!("{{\"seconds\": {seconds},\n\"untimed\": {{\n\"found\": {found}\n}}}}");
        assert_eq!(same(&summary(1, 2), &summary(3, 2)), Ok(()));
        let Err(Halt::Failed(why)) = same(&summary(1, 2), &summary(1, 4)) else { panic!("not caught") };
        assert!(why.contains("first:  \"found\": 2") && why.contains("second: \"found\": 4"), "{why}");
        assert!(same("{}", "{}").is_err(), "two summaries without the part must not count as equal");
    }
}
