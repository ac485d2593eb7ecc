//! The words of a line with their columns, and the error that points at one of them.

use std::fmt;

/// Where and why a file cannot be read: what was expected there and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What would have been accepted.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: expected {}, found {}", self.line, self.column, self.expected, self.found)
    }
}

impl std::error::Error for ParseError {}

/// One line, read word by word.
#[derive(Clone, Debug)]
pub struct Words<'a> {
    text: &'a str,
    line: usize,
    at: usize,
    word_at: usize,
}

impl<'a> Words<'a> {
    /// The words of `text`, which is line number `line`, up to a `#`.
    pub fn new(text: &'a str, line: usize) -> Self {
        let end = text.find('#').unwrap_or(text.len());
        Self { text: text[..end].trim_end(), line, at: 0, word_at: 0 }
    }

    /// Whether no word is left.
    pub fn is_done(&self) -> bool {
        self.text[self.at..].trim_start().is_empty()
    }

    /// The next word, if there is one.
    pub fn peek(&self) -> Option<&'a str> {
        self.text[self.at..].split_whitespace().next()
    }

    /// Take the next word.
    ///
    /// # Errors
    /// If the line ends here; `expected` says what should have come.
    pub fn next(&mut self, expected: &str) -> Result<&'a str, ParseError> {
        let rest = &self.text[self.at..];
        self.word_at = self.at + (rest.len() - rest.trim_start().len());
        let word = rest.split_whitespace().next();
        match word {
            Some(word) => {
                self.at = self.word_at + word.len();
                Ok(word)
            }
            None => Err(self.error(expected, "the end of the line")),
        }
    }

    /// An error at the word taken last.
    pub fn error(&self, expected: impl Into<String>, found: impl Into<String>) -> ParseError {
        let column = self.text.get(..self.word_at).map_or(1, |before| before.chars().count() + 1);
        ParseError { line: self.line, column, expected: expected.into(), found: found.into() }
    }

    /// An error at the word taken last that shows `word` as what was found, cut short if it is long.
    pub fn found(&self, expected: impl Into<String>, word: &str) -> ParseError {
        let shown: String = word.chars().take(40).flat_map(char::escape_debug).collect();
        let dots = if word.chars().count() > 40 { "…" } else { "" };
        self.error(expected, format!("`{shown}{dots}`"))
    }

    /// An error about the line as a whole: words that are right one by one and wrong together.
    pub(super) fn whole(&self, expected: impl Into<String>) -> ParseError {
        let line = self.text.trim_start();
        let start = Words { word_at: self.text.len() - line.len(), ..self.clone() };
        start.error(expected, format!("`{line}`"))
    }

    /// Check that the line ends here.
    ///
    /// # Errors
    /// If a word is left.
    pub fn end(&mut self) -> Result<(), ParseError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => {
                let word = self.next("")?;
                Err(self.found("the end of the line", word))
            }
        }
    }

    /// Take `key=VALUE` and return the value.
    ///
    /// # Errors
    /// If the next word is not of that form.
    pub fn value(&mut self, key: &str) -> Result<&'a str, ParseError> {
        let expected = format!("{key}=…");
        let word = self.next(&expected)?;
        match word.split_once('=') {
            Some((found, value)) if found == key => Ok(value),
            _ => Err(self.found(expected, word)),
        }
    }

    /// Read `word` as a number up to `max`.
    ///
    /// # Errors
    /// If it is none, or larger.
    pub fn number(&self, word: &str, max: u64) -> Result<u64, ParseError> {
        let parsed = match word.strip_prefix("0x") {
            Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16).ok(),
            None if !word.starts_with('+') => word.parse().ok(),
            _ => None,
        };
        parsed.filter(|&n| n <= max).ok_or_else(|| self.found(format!("a number from 0 to {max:#x}"), word))
    }

    /// Take `key=NUMBER`.
    ///
    /// # Errors
    /// If the next word is not of that form or the number is above `max`.
    pub fn keyed_number(&mut self, key: &str, max: u64) -> Result<u64, ParseError> {
        let value = self.value(key)?;
        self.number(value, max)
    }

    /// Take a word of the form `v0` and so on: `letter` and a number.
    pub(super) fn tagged(&self, word: &str, letter: char, expected: &str) -> Result<u8, ParseError> {
        word.strip_prefix(letter)
            .and_then(|digits| digits.parse().ok().filter(|_| digits.len() <= 3 && !digits.starts_with('+')))
            .ok_or_else(|| self.found(expected, word))
    }
}
