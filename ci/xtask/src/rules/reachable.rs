//! Every source file belongs to a crate: a file that no module declares is never compiled and never tested.

use super::Breach;
use crate::tree::Tree;

pub(super) const LAW: &str = "every .rs file is a crate root (src/lib.rs, src/main.rs, src/bin, tests, examples, benches, build.rs, or a \
                              `path =` of Cargo.toml) or is declared by `mod` in the file above it; declare it or delete it.";

pub(super) fn breaches(tree: &Tree) -> Vec<Breach> {
    let named = named_roots(tree);
    let is_root = |path: &str| is_root(path) || named.iter().any(|root| root == path);
    let declared = |path: &str| {
        let (folder, name) = module(path);
        let mut above = tree.files().filter(|(file, _)| {
            let parent = file.rsplit_once('/').map_or(".", |(parent, _)| parent);
            *file == format!("{folder}.rs")
                || *file == format!("{folder}/mod.rs")
                || (parent == folder && is_root(file))
        });
        let declares =
            |line: &str| line.trim_start().trim_end_matches(';').rsplit_once("mod ").is_some_and(|(_, m)| m == name);
        above.any(|(_, text)| text.lines().any(|line| declares(line) && !line.trim_start().starts_with("//")))
    };
    let sources = tree.files().filter(|(path, _)| path.ends_with(".rs"));
    let lost = sources.filter(|(path, _)| !is_root(path) && !declared(path));
    lost.map(|(path, _)| Breach::new(path, 0, "no module declares this file")).collect()
}

/// The folder of the module that `path` is, and its name.
fn module(path: &str) -> (&str, &str) {
    let path = path.strip_suffix("/mod.rs").unwrap_or(path.trim_end_matches(".rs"));
    path.rsplit_once('/').unwrap_or((".", path))
}

/// Whether cargo takes `path` for the root of a target.
fn is_root(path: &str) -> bool {
    let parts: Vec<&str> = path.rsplit('/').collect();
    match parts[..] {
        ["lib.rs" | "main.rs", "src", ..] | ["build.rs", ..] => true,
        ["main.rs", _, "bin" | "tests" | "examples" | "benches", ..] => true,
        [_, "bin" | "tests" | "examples" | "benches", ..] => !path.contains("/src/") || path.contains("/src/bin/"),
        _ => false,
    }
}

/// The roots that manifests name.
fn named_roots(tree: &Tree) -> Vec<String> {
    let mut roots = Vec::new();
    for (manifest, text) in tree.files().filter(|(path, _)| path.ends_with("/Cargo.toml")) {
        let folder = manifest.trim_end_matches("Cargo.toml");
        let values = text.lines().filter_map(|line| line.trim().strip_prefix("path")?.trim().strip_prefix('='));
        let paths = values.map(|value| value.trim().trim_matches('"')).filter(|path| path.ends_with(".rs"));
        roots.extend(paths.map(|path| format!("{folder}{path}")));
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_no_module_declares_is_caught() {
        let files = [
            ("a/Cargo.toml", "[package]\n[[bin]]\npath = \"odd/start.rs\"\n"),
            ("a/odd/start.rs", "mod beside;"),
            ("a/odd/beside.rs", ""),
            ("a/src/lib.rs", "pub mod x;\n// mod lost;"),
            ("a/src/lost.rs", ""),
            ("a/src/x.rs", "mod y;\n#[cfg(test)]\nmod tests;"),
            ("a/src/x/tests.rs", ""),
            ("a/src/x/y.rs", "mod z;"),
            ("a/src/x/y/z/mod.rs", "mod w;"),
            ("a/src/x/y/z/w.rs", ""),
            ("a/src/bin/tool.rs", ""),
            ("a/tests/law.rs", "mod common;"),
            ("a/tests/common/mod.rs", ""),
            ("a/tests/common/helper.rs", ""),
            ("a/examples/e/main.rs", ""),
            ("a/build.rs", ""),
            ("stray.rs", ""),
        ];
        let lost: Vec<String> = breaches(&Tree::of(&files)).into_iter().map(|breach| breach.path).collect();
        assert_eq!(lost, ["a/src/lost.rs", "a/tests/common/helper.rs", "stray.rs"]);
    }
}
