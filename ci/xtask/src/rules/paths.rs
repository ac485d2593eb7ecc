//! The repository means the same on every machine: no path of one, and no package host but the public one.

use super::Breach;
use crate::tree::Tree;

pub(super) const LAW: &str = "no file names a path of one machine or a package host other than crates.io; write it relative, or take \
                              it from the environment.";

/// Beginnings of absolute paths that exist on one machine, and signs of another package host. Split so that this file does not
/// break its own rule.
const MACHINE: [&str; 5] = [
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/tmp/", "bash"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
];
const HOSTS: [&str; 4] = [
    concat!("replace", "-with"),
    concat!("[source", "."),
    concat!("sparse+", "http"),
    concat!("regist", "ry = \"http"),
];

/// The only source that Cargo.lock may name.
const PUBLIC: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";

pub(super) fn breaches(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, text) in tree.files() {
        for (number, line) in text.lines().enumerate().map(|(i, line)| (i + 1, line)) {
            let sign = MACHINE.into_iter().find(|start| names_path(line, start));
            let sign = sign.or(HOSTS.into_iter().find(|sign| line.contains(sign)));
            let foreign = path.ends_with("Cargo.lock") && line.starts_with("source = ") && line != PUBLIC;
            if let Some(found) = sign.or(foreign.then_some("a source other than crates.io")) {
                breaches.push(Breach::new(path, number, format!("`{found}`")));
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

    #[test]
    fn paths_of_a_machine_and_other_package_hosts_are_caught() {
        let found = |path: &str, text: &str| breaches(&Tree::of(&[(path, text)])).len();
        for start in MACHINE {
            let [absolute, relative] = [format!("see {start}x"), format!("see some{start}x")];
            assert_eq!((found("a.md", &absolute), found("a.md", &relative)), (1, 0), "{start}");
        }
        for sign in HOSTS {
            assert_eq!(found(".cargo/config.toml", sign), 1, "{sign}");
        }
        assert_eq!((found("Cargo.lock", PUBLIC), found("Cargo.lock", "source = \"git+https://x.org/y\"")), (0, 1));
    }
}
