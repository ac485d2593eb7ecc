//! The small changes: operators, conditions, numbers and calls, one place at a time. They work on sources as rustfmt leaves them, where
//! a binary operator has a space on both sides and a type parameter has none.

use crate::tokens::{Kind, Token, tokens, without_tests};

/// One change of a source file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mutation {
    /// The line that it is in, from 1.
    pub(crate) line: usize,
    /// What changes, in the words of a report.
    pub(crate) what: String,
    /// The characters that are replaced.
    span: (usize, usize),
    replacement: String,
}

impl Mutation {
    /// The source with this change.
    pub(crate) fn apply(&self, source: &str) -> String {
        let (start, end) = self.span;
        let before = source.chars().take(start);
        before.chain(self.replacement.chars()).chain(source.chars().skip(end)).collect()
    }
}

/// Binary operators, and what each becomes.
const OPERATORS: [(&str, &str); 22] = [
    ("==", "!="),
    ("!=", "=="),
    ("<=", "<"),
    (">=", ">"),
    ("<", "<="),
    (">", ">="),
    ("&&", "||"),
    ("||", "&&"),
    ("<<", ">>"),
    (">>", "<<"),
    ("+=", "-="),
    ("-=", "+="),
    ("|=", "&="),
    ("&=", "|="),
    ("+", "-"),
    ("-", "+"),
    ("*", "+"),
    ("/", "*"),
    ("%", "/"),
    ("|", "&"),
    ("&", "|"),
    ("^", "|"),
];

/// Words, and what each becomes.
const WORDS: [(&str, &str); 16] = [
    ("true", "false"),
    ("false", "true"),
    ("min", "max"),
    ("max", "min"),
    ("any", "all"),
    ("all", "any"),
    ("is_some", "is_none"),
    ("is_none", "is_some"),
    ("is_some_and", "is_none_or"),
    ("is_none_or", "is_some_and"),
    ("union", "minus"),
    ("minus", "union"),
    ("intersect", "union"),
    ("push_back", "push_front"),
    ("filter", "skip_while"),
    ("flatten", "flatten().skip(1).into_iter"),
];

/// Words that no statement begins with that could go.
const KEPT: [&str; 16] = [
    "let", "return", "use", "const", "static", "fn", "pub", "struct", "enum", "impl", "type", "mod", "trait", "break",
    "if", "match",
];

/// Every change of `source`, in the order of the places. Tests, attributes and assertions stay as they are.
pub(crate) fn mutations(source: &str) -> Vec<Mutation> {
    let tokens = without_tests(&tokens(source));
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if let Some(end) = left_alone(&tokens, at) {
            at = end;
            continue;
        }
        let length = operator(&tokens, at, &mut found);
        if length == 0 {
            word(&tokens, at, &mut found);
            number(&tokens, at, &mut found);
            negation(&tokens, at, &mut found);
            condition(source, &tokens, at, &mut found);
            statement(source, &tokens, at, &mut found);
        }
        at += length.max(1);
    }
    found
}

/// The end of an attribute or assertion that begins at `at`.
fn left_alone(tokens: &[Token], at: usize) -> Option<usize> {
    let bracket = |at: usize| tokens.get(at).is_some_and(|token| token.is_sign('[') || token.is_sign('('));
    let attribute = tokens[at].is_sign('#') && bracket(at + 1);
    let asserts = tokens[at].word().is_some_and(|word| word.contains("assert"));
    match () {
        () if attribute => Some(closing(tokens, at + 1)),
        () if asserts && bracket(at + 2) => Some(closing(tokens, at + 2)),
        () => None,
    }
}

/// The index after the bracket that closes the one at `open`.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.kind {
            Kind::Sign('(' | '[' | '{') => depth += 1,
            Kind::Sign(')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// Adds the changes of the binary operator at `at`, and returns how many signs it has; 0 if there is none.
fn operator(tokens: &[Token], at: usize, found: &mut Vec<Mutation>) -> usize {
    let sign = |token: &Token| match token.kind {
        Kind::Sign(sign) => Some(sign),
        _ => None,
    };
    if tokens[at].joined || sign(&tokens[at]).is_none() {
        return 0;
    }
    let signs: String = tokens[at..]
        .iter()
        .enumerate()
        .map_while(|(n, token)| sign(token).filter(|_| n == 0 || token.joined))
        .collect();
    let length = signs.chars().count();
    let spaced = tokens.get(at + length).is_some_and(|next| !next.joined);
    // A closure or a pattern begins with a bar after these.
    let operand = at.checked_sub(1).is_some_and(|before| match &tokens[before].kind {
        Kind::Sign(sign) => matches!(sign, ')' | ']' | '}' | '?'),
        Kind::Word(word) => !matches!(word.as_str(), "move" | "return" | "in" | "match" | "if"),
        _ => true,
    });
    let Some((_, other)) = OPERATORS.iter().find(|(operator, _)| *operator == signs && spaced && operand) else {
        return 0;
    };
    let span = (tokens[at].span.0, tokens[at + length - 1].span.1);
    add(found, &tokens[at], span, (&signs, other));
    length
}

fn add(found: &mut Vec<Mutation>, token: &Token, span: (usize, usize), (from, to): (&str, &str)) {
    let what = if to.is_empty() { format!("delete `{from}`") } else { format!("`{from}` becomes `{to}`") };
    found.push(Mutation { line: token.line, what, span, replacement: to.to_owned() });
}

fn word(tokens: &[Token], at: usize, found: &mut Vec<Mutation>) {
    let Some(word) = tokens[at].word() else { return };
    let Some((_, other)) = WORDS.iter().find(|(candidate, _)| *candidate == word) else { return };
    let literal = matches!(word, "true" | "false");
    let called = at > 0 && tokens[at - 1].is_sign('.') && tokens.get(at + 1).is_some_and(|next| next.is_sign('('));
    if literal || called {
        add(found, &tokens[at], tokens[at].span, (word, other));
    }
}

/// A number becomes one more.
fn number(tokens: &[Token], at: usize, found: &mut Vec<Mutation>) {
    let Some(value) = tokens[at].value() else { return };
    // A field of a tuple is no number, and the length of an array would not fit.
    let field = at > 0 && tokens[at].joined && tokens[at - 1].is_sign('.');
    let length = at > 0 && tokens[at - 1].is_sign(';');
    if !field && !length {
        add(found, &tokens[at], tokens[at].span, (&value.to_string(), &(value + 1).to_string()));
    }
}

fn negation(tokens: &[Token], at: usize, found: &mut Vec<Mutation>) {
    let unary = tokens[at].is_sign('!') && tokens.get(at + 1).is_some_and(|next| next.joined && !next.is_sign('='));
    let called = at > 0 && tokens[at].joined && tokens[at - 1].word().is_some();
    if unary && !called {
        add(found, &tokens[at], tokens[at].span, ("!", ""));
    }
}

/// The condition of an `if` is negated, unless it binds names.
fn condition(source: &str, tokens: &[Token], at: usize, found: &mut Vec<Mutation>) {
    if !tokens[at].is("if") {
        return;
    }
    let mut depth = 0usize;
    for (end, token) in tokens.iter().enumerate().skip(at + 1) {
        match token.kind {
            Kind::Sign('{') if depth == 0 => {
                let span = (tokens[at + 1].span.0, tokens[end - 1].span.1);
                let condition = text(source, span);
                let replacement = format!("!({condition})");
                let what = format!("negate `{}`", in_a_line(&condition));
                found.push(Mutation { line: tokens[at].line, what, span, replacement });
                return;
            }
            // The guard of an arm ends at its arrow.
            Kind::Sign('=')
                if depth == 0 && tokens.get(end + 1).is_some_and(|next| next.is_sign('>') && next.joined) =>
            {
                return;
            }
            Kind::Sign('(' | '[' | '{') => depth += 1,
            Kind::Sign(')' | ']' | '}') => depth = depth.saturating_sub(1),
            Kind::Word(ref word) if word == "let" => return,
            _ => {}
        }
    }
}

/// A statement that is made for its effect goes.
fn statement(source: &str, tokens: &[Token], at: usize, found: &mut Vec<Mutation>) {
    let begins = at > 0 && matches!(tokens[at - 1].kind, Kind::Sign(';' | '{' | '}'));
    let first = match &tokens[at].kind {
        Kind::Word(word) => !KEPT.contains(&word.as_str()),
        Kind::Sign(sign) => *sign == '*',
        _ => false,
    };
    if !begins || !first {
        return;
    }
    let mut depth = 0usize;
    let repeats = matches!(tokens[at].word(), Some("for" | "while" | "loop"));
    for (end, token) in tokens.iter().enumerate().skip(at) {
        let body = repeats && depth == 0 && token.is_sign('{');
        if body || depth == 0 && token.is_sign(';') {
            let last = if body { closing(tokens, end) - 1 } else { end };
            let span = (tokens[at].span.0, tokens[last].span.1);
            let what = format!("delete `{}`", in_a_line(&text(source, span)));
            found.push(Mutation { line: tokens[at].line, what, span, replacement: String::new() });
            return;
        }
        match token.kind {
            // Not a statement after all, but a field, an arm or the value of a block.
            Kind::Sign(',' | '}') if depth == 0 => return,
            Kind::Sign('(' | '[' | '{') => depth += 1,
            Kind::Sign(')' | ']' | '}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
}

fn text(source: &str, (start, end): (usize, usize)) -> String {
    source.chars().skip(start).take(end - start).collect()
}

fn in_a_line(code: &str) -> String {
    code.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `source` becomes, without the rest of the function around it.
    fn mutants(body: &str) -> Vec<String> {
        let source = format!("fn f() {{ {body} }}");
        let whole = mutations(&source).into_iter().map(|mutation| mutation.apply(&source));
        whole.map(|mutant| mutant["fn f() { ".len()..mutant.len() - 2].to_owned()).collect()
    }

    #[test]
    fn each_place_is_changed_once() {
        assert_eq!(mutants("a == b"), ["a != b"]);
        assert_eq!(mutants("a < b && c"), ["a <= b && c", "a < b || c"]);
        assert_eq!(mutants("x.min(y)"), ["x.max(y)"]);
        assert_eq!(mutants("!a"), ["a"]);
        assert_eq!(mutants("n + 1"), ["n - 1", "n + 2"]);
        assert_eq!(mutants("a(b); c"), [" c"]);
        assert_eq!(mutants("for a in b { c } d"), [" d"]);
        assert_eq!(mutants("if a { b }"), ["if !(a) { b }"]);
        assert_eq!(mutants("x |= 1 << y;"), ["", "x &= 1 << y;", "x |= 2 << y;", "x |= 1 >> y;"]);
    }

    #[test]
    fn types_closures_patterns_and_attributes_stay() {
        for kept in ["Vec::<u8>::new()", "f(|a| a)", "f(|| a)", "let x: &T = &y;", "#[cfg(a = 1)] x", "assert!(a == b)"]
        {
            assert_eq!(mutants(kept), [""; 0], "{kept}");
        }
        assert_eq!(mutants("if let A = b { c }"), [""; 0]);
        assert_eq!(mutants("x.0"), [""; 0]);
    }
}
