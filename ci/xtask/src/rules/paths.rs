//! The repository means the same on every machine: no path of one, and no package host but the public one.

use super::Breach;
use crate::tree::Tree;

pub(super) const LAW: &str = "no file names a path of somebody's machine or a package host other than crates.io; write it \
                              relative, or take it from the environment.";

/// Beginnings of absolute paths that exist on one machine. Split so that this file does not break its own rule.
const MACHINE: [&str; 5] = [
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/tmp/", "bash"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
];

/// Signs of a package host or mirror in configuration and lock files.
const HOSTS: [&str; 5] = [
    concat!("replace", "-with"),
    concat!("[source", "."),
    concat!("[regist", "ries"),
    concat!("sparse+", "http"),
    concat!("regist", "ry = \"http"),
];

/// The only source that Cargo.lock may name.
const PUBLIC: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(super) fn breaches(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, text) in tree.files() {
        for (number, line) in text.lines().enumerate().map(|(i, line)| (i + 1, line)) {
            if let Some(found) = MACHINE.into_iter().find(|start| names_path(line, start)) {
                breaches.push(Breach::new(path, number, format!("`{found}…`")));
            }
            if let Some(found) = HOSTS.into_iter().find(|sign| line.contains(sign)) {
                breaches.push(Breach::new(path, number, format!("`{found}`")));
            }
            let source = line.strip_prefix("source = ").filter(|_| path.ends_with("Cargo.lock"));
            if let Some(source) = source.filter(|source| source.trim_matches('"') != PUBLIC) {
                breaches.push(Breach::new(path, number, format!("a package from {source}")));
            }
        }
    }
    breaches
}

/// Whether `line` has `start` at the beginning of a path, not in the middle of a relative one.
fn names_path(line: &str, start: &str) -> bool {
    line.match_indices(start).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "_-.*}>)$~".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        breaches(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn paths_of_a_machine_are_caught_in_any_file() {
        for start in MACHINE {
            assert_eq!(found("README.md", &format!("see {start}x for it")), 1, "{start}");
            assert_eq!(found("corpus/hw/a.trace", &format!("# \"{start}x\"")), 1, "{start}");
            assert_eq!(found("a.md", &format!("see some{start}x")), 0, "{start}");
        }
    }

    #[test]
    fn other_package_hosts_are_caught() {
        assert_eq!(found("Cargo.lock", &format!("source = \"{PUBLIC}\"")), 0);
        assert_eq!(found("Cargo.lock", "source = \"git+https://example.org/x\""), 1);
        for sign in HOSTS {
            assert_eq!(found(".cargo/config.toml", sign), 1, "{sign}");
        }
    }
}
