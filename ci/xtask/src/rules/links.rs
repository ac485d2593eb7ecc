//! A link in a document leads to a file that is there.

use super::Breach;
use crate::tree::Tree;

pub(super) const LAW: &str = "a link to a file, in any .md file, leads to one; mend it.";

pub(super) fn breaches(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, text) in tree.files().filter(|(path, _)| path.ends_with(".md")) {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (number, line) in text.lines().enumerate().map(|(i, line)| (i + 1, line)) {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            let files = targets.filter_map(|target| target.split('#').next()).filter(|target| !target.is_empty());
            // What has a colon is an address elsewhere, or an item of rustdoc, which rustdoc checks.
            for target in files.filter(|target| !target.contains(':')) {
                if !tree.has(&normal(&format!("{folder}/{target}"))) {
                    breaches.push(Breach::new(path, number, format!("the link to {target} leads nowhere")));
                }
            }
        }
    }
    breaches
}

/// `a/b/../c/` as `a/c`.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_lead_nowhere_are_caught() {
        let text = "[a](../model/src/lib.rs#L3) [b](../model/) [c](https://x.org/y) [e](#part)\n[d](gone.md)";
        let found = breaches(&Tree::of(&[("model/src/lib.rs", ""), ("docs/x.md", text)]));
        assert_eq!(found, [Breach::new("docs/x.md", 2, "the link to gone.md leads nowhere")]);
    }
}
