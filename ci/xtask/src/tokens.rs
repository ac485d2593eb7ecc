//! Rust source as words, numbers, strings and signs, so that a rule about code is never fooled by a comment or a string.

/// What stands at a place in a source file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A name or keyword.
    Word(String),
    /// A number, with its value if it is a whole one.
    Number(Option<u128>),
    /// What a string, byte string or character literal holds, escapes as they are written.
    Text(String),
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
        matches!(&self.kind, Kind::Word(found) if found == word)
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

/// Whether `tokens` begins with `pattern`, written as Rust with spaces between tokens; `_` stands for any string.
pub(crate) fn begins(tokens: &[Token], pattern: &str) -> bool {
    let mut words = pattern.split(' ');
    let mut tokens = tokens.iter();
    words.all(|word| match (tokens.next().map(|token| &token.kind), word) {
        (Some(Kind::Text(_)), "_") => true,
        (Some(Kind::Word(found)), _) => found == word,
        (Some(Kind::Sign(sign)), _) => word.chars().eq([*sign]),
        _ => false,
    })
}

/// The tokens of `source`, without comments.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { chars: source.chars().collect(), at: 0, line: 1, out: Vec::new() };
    lexer.run();
    lexer.out
}

/// The same without items under `#[cfg(test)]`.
pub(crate) fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if begins(&tokens[at..], "# [ cfg ( test ) ]") {
            at = item_end(tokens, at + 7);
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// The index after the item that starts at `at`: after its `;`, or after the braces that close it.
fn item_end(tokens: &[Token], mut at: usize) -> usize {
    let mut depth = 0usize;
    while at < tokens.len() {
        match tokens[at].kind {
            Kind::Sign('(' | '[' | '{') => depth += 1,
            Kind::Sign(')' | ']') => depth = depth.saturating_sub(1),
            Kind::Sign('}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            Kind::Sign(';' | ',') if depth == 0 => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
    out: Vec<Token>,
}

impl Lexer {
    fn run(&mut self) {
        let mut end_of_last = usize::MAX;
        while let Some(c) = self.peek(0) {
            let (start, line) = (self.at, self.line);
            let kind = self.token(c);
            if let Some(kind) = kind {
                self.out.push(Token { kind, line, joined: start == end_of_last, span: (start, self.at) });
                end_of_last = self.at;
            }
        }
    }

    fn token(&mut self, c: char) -> Option<Kind> {
        match c {
            '/' if self.peek(1) == Some('/') => self.skip_while(|c| c != '\n'),
            '/' if self.peek(1) == Some('*') => self.skip_block_comment(),
            c if c.is_whitespace() => self.skip_while(char::is_whitespace),
            '"' => return Some(self.string()),
            '\'' => return self.character_or_lifetime(),
            c if c.is_ascii_digit() => return Some(self.number()),
            c if c.is_alphabetic() || c == '_' => return Some(self.word_or_string()),
            c => {
                self.bump();
                return Some(Kind::Sign(c));
            }
        }
        None
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek(0)?;
        self.at += 1;
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn skip_while(&mut self, goes_on: impl Fn(char) -> bool) {
        while self.peek(0).is_some_and(&goes_on) {
            self.bump();
        }
    }

    fn skip_block_comment(&mut self) {
        let mut depth = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => depth += 1,
                (Some('*'), Some('/')) => depth -= 1,
                (Some(_), _) => {
                    self.bump();
                    continue;
                }
                (None, _) => return,
            }
            self.bump();
            self.bump();
            if depth == 0 {
                return;
            }
        }
    }

    fn take_while(&mut self, goes_on: impl Fn(char) -> bool) -> String {
        let start = self.at;
        self.skip_while(goes_on);
        self.chars[start..self.at].iter().collect()
    }

    fn string(&mut self) -> Kind {
        self.bump();
        let start = self.at;
        while let Some(c) = self.peek(0) {
            match c {
                '"' => break,
                '\\' => {
                    self.bump();
                    self.bump();
                }
                _ => {
                    self.bump();
                }
            }
        }
        let text = self.chars[start..self.at.min(self.chars.len())].iter().collect();
        self.bump();
        Kind::Text(text)
    }

    fn raw_string(&mut self) -> Kind {
        let hashes = self.take_while(|c| c == '#').len();
        self.bump();
        let start = self.at;
        while let Some(c) = self.peek(0) {
            if c == '"' && (1..=hashes).all(|ahead| self.peek(ahead) == Some('#')) {
                break;
            }
            self.bump();
        }
        let text = self.chars[start..self.at].iter().collect();
        for _ in 0..=hashes {
            self.bump();
        }
        Kind::Text(text)
    }

    /// `'a'` and `'\n'` are characters; `'a` is a lifetime, of no interest here.
    fn character_or_lifetime(&mut self) -> Option<Kind> {
        self.bump();
        if self.peek(0) != Some('\\') && self.peek(1) != Some('\'') {
            self.skip_while(|c| c.is_alphanumeric() || c == '_');
            return None;
        }
        let start = self.at;
        if self.bump() == Some('\\') {
            self.bump();
        }
        self.skip_while(|c| c != '\'');
        let text = self.chars[start..self.at].iter().collect();
        self.bump();
        Some(Kind::Text(text))
    }

    fn word_or_string(&mut self) -> Kind {
        let word = self.take_while(|c| c.is_alphanumeric() || c == '_');
        match (word.as_str(), self.peek(0), self.peek(1)) {
            ("r" | "br" | "cr", Some('"'), _) | ("r" | "br" | "cr", Some('#'), Some('"' | '#')) => self.raw_string(),
            ("b" | "c", Some('"'), _) => self.string(),
            ("b", Some('\''), _) => self.character_or_lifetime().unwrap_or(Kind::Sign('\'')),
            ("r", Some('#'), _) => {
                self.bump();
                Kind::Word(self.take_while(|c| c.is_alphanumeric() || c == '_'))
            }
            _ => Kind::Word(word),
        }
    }

    fn number(&mut self) -> Kind {
        let digits = self.take_while(|c| c.is_alphanumeric() || c == '_');
        if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
            self.bump();
            self.skip_while(|c| c.is_alphanumeric() || c == '_');
            return Kind::Number(None);
        }
        Kind::Number(whole(&digits))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<String> {
        tokens(source).iter().filter_map(|token| token.word().map(str::to_owned)).collect()
    }

    #[test]
    fn comments_strings_and_lifetimes_hold_no_words() {
        let source =
            "a // b\n/* c /* d */ e */ f \"g \\\" h\" r#\"i \" j\"# k<'l> 'm' '\\'' b\"n\" b'o' r#p 'q' '\"' s";
        assert_eq!(words(source), ["a", "f", "k", "p", "s"]);
    }

    #[test]
    fn numbers_have_their_value_in_every_spelling() {
        let values: Vec<_> = tokens("12 0xf_f0 4_097u64 0b11 1.5 0..7").iter().filter_map(Token::value).collect();
        assert_eq!(values, [12, 0xff0, 4097, 3, 0, 7]);
    }

    #[test]
    fn lines_are_counted_through_strings_and_comments() {
        let last = tokens("\"a\nb\" /* c\nd */\n e").pop().unwrap();
        assert_eq!((last.word(), last.line), (Some("e"), 4));
    }

    #[test]
    fn items_under_cfg_test_are_left_out() {
        let source = "a; #[cfg(test)] mod t { fn f() { b } } c; #[cfg(test)] #[x] use d; e";
        let words: Vec<String> =
            without_tests(&tokens(source)).iter().filter_map(|token| token.word().map(str::to_owned)).collect();
        assert_eq!(words, ["a", "c", "e"]);
    }
}
