//! Campaigns with a fixed seed: clean on every target, and the same every time.

use crate::gate::{Gate, Halt, Verdict};
use std::path::Path;

/// Targets that run anywhere, with the number of programs. Known findings count as clean.
const CAMPAIGNS: [(&str, &str); 5] =
    [("kvm-mmu", "20000"), ("kvm-mmu-no-ad", "5000"), ("kvm-mmu-npt", "5000"), ("tdp-mmu", "5000"), ("rfc-v3", "5000")];

/// Every program of the standard scopes. Which mutants die in them is a snapshot of the test `exhaust` of `kvm-mmu`.
pub(crate) fn exhaust(gate: &Gate) -> Verdict {
    let dir = gate.scratch("exhaust")?;
    let mut command = gate.binary("gpafuzz")?;
    command.arg("exhaust").arg("--out").arg(dir.join("out"));
    gate.expect(0, &mut command)?;
    Ok(String::new())
}

pub(crate) fn clean(gate: &Gate) -> Verdict {
    for (target, runs) in CAMPAIGNS {
        campaign(gate, target, runs, target)?;
    }
    Ok(CAMPAIGNS.map(|(target, runs)| format!("{target} {runs}")).join(", "))
}

pub(crate) fn repeats(gate: &Gate) -> Verdict {
    let (target, runs) = CAMPAIGNS[0];
    let first = campaign(gate, target, runs, "first")?;
    let second = campaign(gate, target, runs, "second")?;
    same(&first, &second).map(|()| format!("{target} {runs}, twice"))
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
    let part = |text| {
        untimed(text)
            .ok_or_else(|| Halt::failed("expected a member `untimed` in the summary of a campaign, found none"))
    };
    let (first, second) = (part(first)?, part(second)?);
    if first == second {
        return Ok(());
    }
    let lines = first.lines().zip(second.lines());
    let differing =
        lines.filter(|(a, b)| a != b).take(10).map(|(a, b)| format!("  first:  {}\n  second: {}", a.trim(), b.trim()));
    let differing = differing.collect::<Vec<_>>().join("\n");
    Err(Halt::failed(format!("expected two campaigns with seed 1 to agree in `untimed`, found:\n{differing}")))
}

/// The text of the object that is member `untimed` of a JSON text.
fn untimed(json: &str) -> Option<&str> {
    let key = "\"untimed\"";
    let after = &json[json.find(key)? + key.len()..];
    let object = after.trim_start().strip_prefix(':')?.trim_start();
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (at, c) in object.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            '{' | '[' if !in_string => depth += 1,
            '}' | ']' if !in_string => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(&object[..=at]);
                }
            }
            _ if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_untimed_part_is_cut_out_whole() {
        let json = "{\"timed\": {\"s\": 1}, \"untimed\": {\"a\": [{\"b\": \"}\\\"\"}]}, \"x\": 2}";
        assert_eq!(untimed(json), Some("{\"a\": [{\"b\": \"}\\\"\"}]}"));
        assert_eq!(untimed("{\"untimed\": 3}"), None);
        assert_eq!(untimed("{}"), None);
    }

    #[test]
    fn a_campaign_that_differs_is_caught_and_time_does_not_count() {
        let summary = |seconds, found| format!("{{\"seconds\": {seconds},\n\"untimed\": {{\n\"found\": {found}\n}}}}");
        assert_eq!(same(&summary(1, 2), &summary(3, 2)), Ok(()));
        let Err(Halt::Failed(why)) = same(&summary(1, 2), &summary(1, 4)) else { panic!("not caught") };
        assert!(why.contains("first:  \"found\": 2") && why.contains("second: \"found\": 4"), "{why}");
        assert!(same("{}", "{}").is_err(), "two summaries without the part must not count as equal");
    }
}
