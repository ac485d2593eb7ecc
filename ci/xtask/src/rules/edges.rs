//! Arrows between crates point down only: what a crate may depend on is a table, and cargo says what it does depend on.
//!
//! The bans of `cargo deny` could hold the table; it takes minutes to install on a fresh machine.

use super::Breach;
use crate::gate::{Gate, Halt};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

pub(super) const LAW: &str = "model <- oracles, targets, hw-runner <- ci; targets and hw-runner do not know each other, and only \
                              ci/gpafuzz knows LibAFL. Remove the dependency, or change the design and this table together.";

/// A workspace crate and which others it may depend on.
struct Layer {
    name: &'static str,
    /// When it is built for use.
    uses: &'static [&'static str],
    /// In its own tests, besides.
    tests_use: &'static [&'static str],
}

const LAYERS: [Layer; 12] = [
    Layer { name: "gpa-model", uses: &[], tests_use: &[] },
    Layer { name: "gpa-oracles", uses: &["gpa-model"], tests_use: &[] },
    Layer { name: "kvm-mmu", uses: &["gpa-model"], tests_use: &["gpa-oracles"] },
    Layer { name: "kernels", uses: &[], tests_use: &[] },
    Layer { name: "linux-kvm", uses: &["kernels"], tests_use: &[] },
    Layer { name: "linux-kvm-plugin", uses: &["kernels", "linux-kvm"], tests_use: &[] },
    Layer { name: "kvm-ko", uses: &["gpa-model", "kernels"], tests_use: &["gpa-oracles", "kvm-mmu"] },
    Layer { name: "kvm-ko-worker", uses: &["gpa-model", "kernels", "kvm-ko"], tests_use: &[] },
    Layer { name: "third-party", uses: &["gpa-model"], tests_use: &["gpa-oracles"] },
    Layer { name: "hw-runner", uses: &["gpa-model", "gpa-oracles"], tests_use: &[] },
    Layer {
        name: "gpafuzz",
        uses: &["gpa-model", "gpa-oracles", "kvm-mmu", "kernels", "kvm-ko", "linux-kvm", "third-party", "hw-runner"],
        tests_use: &[],
    },
    Layer { name: "xtask", uses: &[], tests_use: &[] },
];

/// The one crate that may depend on LibAFL.
const CAMPAIGN: &str = "gpafuzz";

pub(super) fn breaches(gate: &Gate) -> Result<Vec<Breach>, Halt> {
    let output = gate.cargo(&["metadata", "--format-version", "1", "--no-deps", "--locked"]).output();
    let output = output.map_err(|e| Halt::failed(format!("cannot start cargo metadata: {e}")))?;
    let metadata = serde_json::from_slice(&output.stdout).map_err(|e| {
        Halt::failed(format!("`cargo metadata` failed: {e}\n{}", String::from_utf8_lossy(&output.stderr)))
    })?;
    Ok(judge(&dependencies(&metadata)))
}

/// Each crate of the workspace with what it depends on directly, and whether only in its tests. A crate of somebody else cannot depend
/// on one of these, so direct edges are all there are.
type Dependencies = BTreeMap<String, Vec<(String, bool)>>;

fn dependencies(metadata: &Value) -> Dependencies {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let edge = |value: &Value| (name(value), value["kind"] == "dev");
    list(&metadata["packages"])
        .iter()
        .map(|it| (name(it), list(&it["dependencies"]).iter().map(edge).collect()))
        .collect()
}

fn judge(dependencies: &Dependencies) -> Vec<Breach> {
    let members: BTreeSet<String> = dependencies.keys().cloned().collect();
    let mut breaches = unknown(&members);
    for layer in &LAYERS {
        for (used, in_tests) in dependencies.get(layer.name).into_iter().flatten() {
            let may = layer.uses.contains(&used.as_str()) || (*in_tests && layer.tests_use.contains(&used.as_str()));
            if (members.contains(used) && !may) || (used.starts_with("libafl") && layer.name != CAMPAIGN) {
                breaches.push(Breach::new(layer.name, 0, format!("depends on {used}")));
            }
        }
    }
    breaches
}

/// Crates of the workspace that the table does not have, and the other way round.
fn unknown(members: &BTreeSet<String>) -> Vec<Breach> {
    let stray = members.iter().filter(|member| LAYERS.iter().all(|layer| layer.name != **member));
    let gone = LAYERS.iter().filter(|layer| !members.contains(layer.name));
    let stray = stray.map(|name| Breach::new(name, 0, "a crate that the table of edges does not know"));
    stray.chain(gone.map(|layer| Breach::new(layer.name, 0, "in the table of edges, but no crate"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table as it is, with one edge more.
    fn with(name: &str, used: &str, kind: Option<&str>) -> Vec<Breach> {
        let packages = LAYERS.map(|layer| {
            let edge = serde_json::json!({"name": used, "kind": kind});
            serde_json::json!({"name": layer.name, "dependencies": if layer.name == name { vec![edge] } else { vec![] }})
        });
        judge(&dependencies(&serde_json::json!({ "packages": packages })))
    }

    #[test]
    fn an_arrow_that_points_up_or_sideways_is_caught() {
        assert_eq!(with("gpa-model", "gpa-oracles", None).len(), 1);
        assert_eq!(with("kvm-mmu", "hw-runner", Some("dev")).len(), 1);
        assert_eq!(with("kvm-mmu", "gpa-oracles", None).len(), 1);
        assert_eq!(with("kvm-mmu", "gpa-oracles", Some("dev")), []);
        assert_eq!(with("kvm-mmu", "smallvec", None), []);
    }

    #[test]
    fn libafl_below_the_campaign_is_caught() {
        assert_eq!(with("gpa-oracles", "libafl_bolts", None).len(), 1);
        assert_eq!(with(CAMPAIGN, "libafl", None), []);
    }

    #[test]
    fn a_crate_without_a_place_is_caught() {
        let mut members: BTreeSet<String> = LAYERS.iter().map(|layer| layer.name.to_owned()).collect();
        assert_eq!(unknown(&members), []);
        members.insert("helper".into());
        members.remove("xtask");
        assert_eq!(unknown(&members).len(), 2);
    }
}
