//! Rust source as a flat list of words, numbers, strings and signs, so that a comment or a string never fools a rule about code.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};

/// What stands at a place in a source file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A name or keyword.
    Word(String),
    /// A number, with its value if it is a whole one.
    Number(Option<u128>),
    /// A string or a character, as it is written.
    Text,
    /// Any other sign.
    Sign(char),
}

/// One token and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// What it is.
    pub(crate) kind: Kind,
    /// Line, from 1.
    pub(crate) line: usize,
    /// Whether it touches the token before, as the two signs of `<<` do.
    pub(crate) joined: bool,
    /// Where it begins and ends, in characters from the start of the source.
    pub(crate) span: (usize, usize),
}

impl Token {
    /// Whether it is the name or keyword `word`.
    pub(crate) fn is(&self, word: &str) -> bool {
        self.word() == Some(word)
    }

    /// Whether it is `sign`.
    pub(crate) fn is_sign(&self, sign: char) -> bool {
        self.kind == Kind::Sign(sign)
    }

    /// The name or keyword.
    pub(crate) fn word(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }

    /// The value of a whole number.
    pub(crate) fn value(&self) -> Option<u128> {
        match self.kind {
            Kind::Number(value) => value,
            _ => None,
        }
    }
}

/// The tokens of `source`, without comments. None if it is no Rust, which rustc says better.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut list = List { out: Vec::new(), ends: byte_to_char(source) };
    list.flatten(source.parse().unwrap_or_default());
    list.out
}

/// For each byte of `source`, how many characters stand before it.
fn byte_to_char(source: &str) -> Vec<usize> {
    let mut counts = Vec::with_capacity(source.len() + 1);
    for (number, c) in source.chars().enumerate() {
        counts.resize(counts.len() + c.len_utf8(), number);
    }
    counts.push(source.chars().count());
    counts
}

struct List {
    out: Vec<Token>,
    ends: Vec<usize>,
}

impl List {
    fn flatten(&mut self, stream: TokenStream) {
        let mut trees = stream.into_iter().peekable();
        while let Some(tree) = trees.next() {
            match &tree {
                TokenTree::Group(group) => {
                    let signs = match group.delimiter() {
                        Delimiter::Parenthesis => Some(['(', ')']),
                        Delimiter::Brace => Some(['{', '}']),
                        Delimiter::Bracket => Some(['[', ']']),
                        Delimiter::None => None,
                    };
                    signs.iter().for_each(|signs| self.push(Kind::Sign(signs[0]), group.span_open()));
                    self.flatten(group.stream());
                    signs.iter().for_each(|signs| self.push(Kind::Sign(signs[1]), group.span_close()));
                }
                // A doc comment is an attribute to rustc, all of it at the place of the comment; a lifetime is of no interest.
                TokenTree::Punct(sign) if begins_at(sign.span(), trees.peek()) => {
                    while begins_at(sign.span(), trees.peek()) {
                        trees.next();
                    }
                }
                TokenTree::Punct(sign) if sign.as_char() == '\'' => drop(trees.next()),
                TokenTree::Punct(sign) => self.push(Kind::Sign(sign.as_char()), sign.span()),
                TokenTree::Ident(word) => self.push(Kind::Word(word.to_string()), word.span()),
                TokenTree::Literal(literal) => {
                    let text = literal.to_string();
                    let kind = if text.starts_with(|c: char| c.is_ascii_digit()) {
                        Kind::Number(whole(&text))
                    } else {
                        Kind::Text
                    };
                    self.push(kind, literal.span());
                }
            }
        }
    }

    fn push(&mut self, kind: Kind, span: Span) {
        let bytes = span.byte_range();
        let place = (self.ends[bytes.start], self.ends[bytes.end]);
        let joined = self.out.last().is_some_and(|last| last.span.1 == place.0);
        self.out.push(Token { kind, line: span.start().line, joined, span: place });
    }
}

fn begins_at(span: Span, tree: Option<&TokenTree>) -> bool {
    tree.is_some_and(|tree| tree.span().byte_range().start == span.byte_range().start)
}

/// The value of a literal, its underscores and type suffix aside.
fn whole(literal: &str) -> Option<u128> {
    let plain = literal.replace('_', "");
    let (radix, digits) = match plain.get(..2) {
        Some("0x") => (16, &plain[2..]),
        Some("0o") => (8, &plain[2..]),
        Some("0b") => (2, &plain[2..]),
        _ => (10, plain.as_str()),
    };
    let end = digits.find(['u', 'i']).unwrap_or(digits.len());
    u128::from_str_radix(&digits[..end], radix).ok()
}

/// The tokens without items under `#[cfg(test)]`.
pub(crate) fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        let test = ["#", "[", "cfg", "(", "test", ")", "]"];
        let begins = tokens[at..].len() > test.len()
            && test.iter().zip(&tokens[at..]).all(|(word, token)| token.is(word) || word.chars().eq(sign(token)));
        if begins {
            at = item_end(tokens, at + test.len());
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

fn sign(token: &Token) -> Option<char> {
    match token.kind {
        Kind::Sign(sign) => Some(sign),
        _ => None,
    }
}

/// The index after the item that starts at `at`: after its `;`, or after the braces that close it.
fn item_end(tokens: &[Token], mut at: usize) -> usize {
    let mut depth = 0usize;
    while at < tokens.len() {
        match sign(&tokens[at]) {
            Some('(' | '[' | '{') => depth += 1,
            Some(')' | ']') => depth = depth.saturating_sub(1),
            Some('}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            Some(';' | ',') if depth == 0 => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_lifetimes_hold_no_words() {
        let source = "//! doc\n/// doc\na // b\n/* c /* d */ e */ f (\"g \\\" h\") r#\"i \" j\"# k<'l> 'm' b\"n\" ü s";
        let found = tokens(source);
        let words: Vec<&str> = found.iter().filter_map(Token::word).collect();
        assert_eq!(words, ["a", "f", "k", "ü", "s"]);
        let cut =
            |token: &Token| source.chars().skip(token.span.0).take(token.span.1 - token.span.0).collect::<String>();
        assert!(found.iter().filter_map(|token| Some((token.word()?, cut(token)))).all(|(word, cut)| word == cut));
        assert_eq!((found[0].line, found[1].line), (3, 4));
    }

    #[test]
    fn numbers_have_their_value_in_every_spelling_and_signs_that_touch_are_joined() {
        let found = tokens("12 0xf_f0 4_097u64 0b11 1.5 a << b");
        assert_eq!(found.iter().filter_map(Token::value).collect::<Vec<_>>(), [12, 0xff0, 4097, 3]);
        assert_eq!(
            found.iter().filter(|token| token.is_sign('<')).map(|token| token.joined).collect::<Vec<_>>(),
            [false, true]
        );
    }

    #[test]
    fn items_under_cfg_test_are_left_out() {
        let source = "a; #[cfg(test)] mod t { fn f() { b } } c; #[cfg(test)] #[x] use d; e";
        let kept = without_tests(&tokens(source));
        assert_eq!(kept.iter().filter_map(Token::word).collect::<Vec<_>>(), ["a", "c", "e"]);
    }
}
