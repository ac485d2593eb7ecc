//! Every bound of a program stands in one file, so that a reader finds them all and a parser checks against all.

use super::Breach;
use crate::tokens::{Token, without_tests};
use crate::tree::Tree;

pub(super) const LAW: &str =
    "numeric bounds of the model are declared in model/src/limits.rs; move the constant there.";

/// Public numbers that are no bounds of a program: file, name, why it stands where it stands.
pub(super) const EXCEPTIONS: [(&str, &str, &str); 4] = [
    ("model/src/program/text.rs", "VERSION", "the version of the format, beside its description"),
    ("model/src/addr.rs", "PAGE_SHIFT", "a fact of the architecture, beside its only users"),
    ("model/src/addr/stolen.rs", "LOWEST_BIT", "where hardware lets a stolen bit be, beside the reason"),
    ("model/src/addr/stolen.rs", "HIGHEST_BIT", "where hardware lets a stolen bit be, beside the reason"),
];

pub(super) fn breaches(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let elsewhere = |path: &&str| path.starts_with("model/src/") && *path != "model/src/limits.rs";
    for (path, tokens) in tree.sources().filter(|(path, _)| elsewhere(path)) {
        let tokens = without_tests(&tokens);
        for at in 0..tokens.len() {
            if let Some(name) = number(&tokens[at..])
                && !EXCEPTIONS.iter().any(|(file, excepted, _)| *file == path && *excepted == name)
            {
                breaches.push(Breach::new(path, tokens[at].line, format!("the number `{name}`")));
            }
        }
    }
    breaches
}

/// The name of the constant declared here, if it is a public whole number that starts with a literal.
fn number(tokens: &[Token]) -> Option<&str> {
    if !tokens.first()?.is("pub") {
        return None;
    }
    let mut rest = &tokens[1..];
    if rest.first()?.is_sign('(') {
        // A room's own number is no bound of a program.
        if rest.get(1)?.is("super") {
            return None;
        }
        rest = &rest[rest.iter().position(|token| token.is_sign(')'))? + 1..];
    }
    let [keyword, name, colon, kind, equals, value, ..] = rest else { return None };
    let whole = ["usize", "u8", "u16", "u32", "u64", "u128"].into_iter().any(|word| kind.is(word));
    let declares = keyword.is("const") && colon.is_sign(':') && whole && equals.is_sign('=');
    name.word().filter(|_| declares && value.value().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, source: &str) -> usize {
        breaches(&Tree::of(&[(path, source)])).len()
    }

    #[test]
    fn a_bound_outside_of_limits_is_caught() {
        assert_eq!(found("model/src/x.rs", "pub const OPS: usize = 256;"), 1);
        assert_eq!(found("model/src/text/y.rs", "pub(crate) const BYTES: u64 = 1 << 20;"), 1);
        assert_eq!(found("model/src/addr.rs", "pub const VERSION: u32 = 1;"), 1);
    }

    #[test]
    fn limits_exceptions_and_what_is_no_number_are_fine() {
        assert_eq!(found("model/src/limits.rs", "pub const OPS: usize = 256;"), 0);
        assert_eq!(found("model/src/program/text.rs", "pub const VERSION: u32 = 1;"), 0);
        assert_eq!(found("model/src/x.rs", "pub const R: Rights = Rights(1); const N: u8 = 1; pub const fn f() {}"), 0);
        assert_eq!(found("model/src/x/y.rs", "pub(super) const NAMES: usize = 3;"), 0);
        assert_eq!(found("oracles/src/x.rs", "pub const CELLS: usize = 65536;"), 0);
    }
}
