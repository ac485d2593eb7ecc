//! Every source file belongs to a crate: a file no root reaches is never compiled and never tested.

use super::Breach;
use crate::tokens::{Kind, Token, tokens};
use crate::tree::Tree;
use std::collections::BTreeSet;

pub(super) const LAW: &str = "every .rs file is reachable from a crate root (src/lib.rs, src/main.rs, src/bin, tests, examples, \
                              benches, build.rs, or a `path =` of Cargo.toml) by `mod`; declare it or delete it.";

pub(super) fn breaches(tree: &Tree) -> Vec<Breach> {
    let mut reached = BTreeSet::new();
    for root in roots(tree) {
        walk(tree, &root, true, &mut reached);
    }
    let lost = tree.files().filter(|(path, _)| path.ends_with(".rs") && !reached.contains(*path));
    lost.map(|(path, _)| Breach::new(path, 0, "no crate root reaches this file")).collect()
}

/// The crate roots cargo would find, and those that manifests name.
fn roots(tree: &Tree) -> Vec<String> {
    let manifests = tree.files().filter(|(path, _)| *path == "Cargo.toml" || path.ends_with("/Cargo.toml"));
    let mut roots = Vec::new();
    for (manifest, text) in manifests.filter(|(_, text)| text.contains("[package]")) {
        let folder = manifest.strip_suffix("Cargo.toml").unwrap_or_default();
        let inside = tree.files().filter_map(|(path, _)| path.strip_prefix(folder));
        roots.extend(inside.filter(|path| is_root(path)).map(|path| format!("{folder}{path}")));
        roots.extend(named_roots(text).map(|path| format!("{folder}{path}")));
    }
    roots
}

/// Whether cargo takes `path`, seen from its manifest, for the root of a target.
fn is_root(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        ["src", "lib.rs" | "main.rs"] | ["build.rs"] => true,
        ["src", "bin", file] | ["tests" | "examples" | "benches", file] => file.ends_with(".rs"),
        ["src", "bin", _, "main.rs"] | ["tests" | "examples" | "benches", _, "main.rs"] => true,
        _ => false,
    }
}

fn named_roots(manifest: &str) -> impl Iterator<Item = &str> {
    let values = manifest.lines().filter_map(|line| line.trim().strip_prefix("path"));
    let values = values.filter_map(|rest| rest.trim().strip_prefix('='));
    values.map(|value| value.trim().trim_matches('"')).filter(|path| path.ends_with(".rs"))
}

/// Reach `path` and the files of the modules it declares.
fn walk(tree: &Tree, path: &str, is_crate_root: bool, reached: &mut BTreeSet<String>) {
    let Some(text) = tree.text(path) else { return };
    if !reached.insert(path.to_owned()) {
        return;
    }
    let (folder, file) = path.rsplit_once('/').unwrap_or((".", path));
    let stem = file.trim_end_matches(".rs");
    let children = if is_crate_root || stem == "mod" { folder.to_owned() } else { format!("{folder}/{stem}") };
    for module in modules(&tokens(text)) {
        let candidates = match &module.path {
            Some(named) => vec![format!("{folder}/{named}")],
            None => {
                let base = [&children].into_iter().chain(&module.outer).cloned().collect::<Vec<_>>().join("/");
                vec![format!("{base}/{}.rs", module.name), format!("{base}/{}/mod.rs", module.name)]
            }
        };
        for candidate in candidates {
            walk(tree, &normal(&candidate), false, reached);
        }
    }
}

/// `a/b/../c` as `a/c`.
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

/// A `mod name;`, the inline modules around it, and where `#[path]` says it is.
#[derive(Debug)]
struct Module {
    name: String,
    outer: Vec<String>,
    path: Option<String>,
}

fn modules(tokens: &[Token]) -> Vec<Module> {
    let mut found = Vec::new();
    // The inline modules around this place, each with the brace depth at which it ends.
    let mut outer: Vec<(String, usize)> = Vec::new();
    let (mut depth, mut path) = (0usize, None);
    for (at, token) in tokens.iter().enumerate() {
        match &token.kind {
            Kind::Sign('{') => depth += 1,
            Kind::Sign('}') => {
                depth = depth.saturating_sub(1);
                outer.retain(|(_, end)| *end < depth + 1);
            }
            Kind::Text(text) if at >= 2 && tokens[at - 1].is_sign('=') && tokens[at - 2].is("path") => {
                path = Some(text.clone());
            }
            Kind::Sign(';') => path = None,
            Kind::Word(word) if word == "mod" => {
                let Some(name) = tokens.get(at + 1).and_then(Token::word) else { continue };
                match tokens.get(at + 2) {
                    Some(next) if next.is_sign(';') => {
                        let outer = outer.iter().map(|(name, _)| name.clone()).collect();
                        found.push(Module { name: name.to_owned(), outer, path: path.take() });
                    }
                    Some(next) if next.is_sign('{') => outer.push((name.to_owned(), depth + 1)),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: (&str, &str) = ("a/Cargo.toml", "[package]\n[[bin]]\npath = \"odd/start.rs\"\n");

    fn lost(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<_> = [MANIFEST].into_iter().chain(files.iter().copied()).collect();
        breaches(&Tree::of(&files)).into_iter().map(|breach| breach.path).collect()
    }

    #[test]
    fn a_file_that_nobody_declares_is_caught() {
        assert_eq!(lost(&[("a/src/lib.rs", "mod x;"), ("a/src/x.rs", ""), ("a/src/y.rs", "")]), ["a/src/y.rs"]);
        assert_eq!(lost(&[("a/src/lib.rs", "// mod x;"), ("a/src/x.rs", "")]), ["a/src/x.rs"]);
        assert_eq!(lost(&[("stray.rs", "")]), ["stray.rs"]);
        assert_eq!(lost(&[("a/tests/common/helper.rs", "")]), ["a/tests/common/helper.rs"]);
    }

    #[test]
    fn every_way_to_declare_a_module_is_followed() {
        let files = [
            ("a/src/lib.rs", "pub mod x; mod inline { mod deep; } #[path = \"odd.rs\"] mod p;"),
            ("a/src/x.rs", "mod y;"),
            ("a/src/x/y.rs", "mod z;"),
            ("a/src/x/y/z/mod.rs", "mod w;"),
            ("a/src/x/y/z/w.rs", ""),
            ("a/src/inline/deep.rs", ""),
            ("a/src/odd.rs", ""),
            ("a/src/bin/tool.rs", ""),
            ("a/tests/law.rs", "mod common;"),
            ("a/tests/common/mod.rs", ""),
            ("a/examples/e/main.rs", ""),
            ("a/odd/start.rs", ""),
            ("a/build.rs", ""),
        ];
        assert_eq!(lost(&files), Vec::<String>::new());
    }
}
