//! Arrows between crates point down only: what a crate may depend on is a table, and cargo says what it does depend on.

use super::Breach;
use crate::gate::{Gate, Halt};
use std::collections::BTreeSet;

pub(super) const LAW: &str = "model <- oracles, targets, hw-runner <- ci; targets and hw-runner do not know each other, and only \
                              ci/gpafuzz knows LibAFL. Remove the dependency, or change the design and this table together.";

/// A workspace crate and which others it may depend on, through however many steps.
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
    let members = names(&tree(gate, &["--workspace", "--depth", "0"])?);
    let mut breaches = unknown(&members);
    for layer in LAYERS.iter().filter(|layer| members.contains(layer.name)) {
        for (kinds, may) in
            [("normal,build", layer.uses.to_vec()), ("normal,build,dev", [layer.uses, layer.tests_use].concat())]
        {
            let used = names(&tree(gate, &["-p", layer.name, "-e", kinds])?);
            breaches.extend(forbidden(layer.name, &used, &may, &members));
        }
    }
    breaches.dedup();
    Ok(breaches)
}

/// Crates of the workspace for which nobody has said where they belong, and the other way round.
fn unknown(members: &BTreeSet<String>) -> Vec<Breach> {
    let stray = members.iter().filter(|member| LAYERS.iter().all(|layer| layer.name != **member));
    let gone = LAYERS.iter().filter(|layer| !members.contains(layer.name));
    let stray = stray.map(|name| Breach::new(name, 0, "a crate that the table of edges does not know"));
    stray.chain(gone.map(|layer| Breach::new(layer.name, 0, "in the table of edges, but no crate"))).collect()
}

/// What crate `name` uses and may not.
fn forbidden(name: &str, used: &BTreeSet<String>, may: &[&str], members: &BTreeSet<String>) -> Vec<Breach> {
    let bad = used.iter().filter(|used| {
        let other_member = members.contains(*used) && *used != name && !may.contains(&used.as_str());
        other_member || (used.starts_with("libafl") && name != CAMPAIGN)
    });
    bad.map(|used| Breach::new(name, 0, format!("depends on {used}"))).collect()
}

fn tree(gate: &Gate, args: &[&str]) -> Result<String, Halt> {
    let always = ["tree", "--prefix", "none", "--format", "{p}", "--target", "all", "--locked"];
    let output = gate.cargo(&[&always, args].concat()).output();
    let output = output.map_err(|e| Halt::failed(format!("cannot start cargo tree: {e}")))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(Halt::failed(format!("`cargo tree {}` failed:\n{why}", args.join(" "))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Package names of `cargo tree --prefix none --format {p}`: the first word of each line.
fn names(tree: &str) -> BTreeSet<String> {
    tree.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn an_arrow_that_points_up_or_sideways_is_caught() {
        let members = set(&["gpa-model", "gpa-oracles", "kvm-mmu", "hw-runner"]);
        let bad = |name, used: &[&str], may| forbidden(name, &set(used), may, &members).len();
        assert_eq!(bad("gpa-model", &["gpa-model", "rand", "gpa-oracles"], &[]), 1);
        assert_eq!(bad("kvm-mmu", &["gpa-model", "hw-runner"], &["gpa-model"]), 1);
        assert_eq!(bad("kvm-mmu", &["gpa-model", "smallvec"], &["gpa-model"]), 0);
    }

    #[test]
    fn libafl_below_the_campaign_is_caught() {
        let used = set(&["libafl", "libafl_bolts"]);
        assert_eq!(forbidden("gpa-oracles", &used, &[], &set(&[])).len(), 2);
        assert_eq!(forbidden(CAMPAIGN, &used, &[], &set(&[])).len(), 0);
    }

    #[test]
    fn a_crate_without_a_place_is_caught() {
        let mut members: BTreeSet<String> = LAYERS.iter().map(|layer| layer.name.to_owned()).collect();
        assert_eq!(unknown(&members), []);
        members.insert("helper".into());
        members.remove("xtask");
        assert_eq!(unknown(&members).len(), 2);
    }

    #[test]
    fn names_are_read_from_what_cargo_prints() {
        let printed = "gpa-model v0.1.0 (some/where)\n\narbitrary v1.4.2\nrand v0.10.0 (*)\n";
        assert_eq!(names(printed), set(&["arbitrary", "gpa-model", "rand"]));
    }
}
