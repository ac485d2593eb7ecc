//! What commands print: text without control characters, to a writer that may fail.

use std::fmt::Display;
use std::io::{self, Write};

/// Escapes control characters, which file names and recordings may carry to a terminal, and keeps the first error.
pub(super) struct Output<'a> {
    to: &'a mut dyn Write,
    error: Option<io::Error>,
}

impl<'a> Output<'a> {
    pub(super) fn new(to: &'a mut dyn Write) -> Self {
        Self { to, error: None }
    }

    /// The first error of a write.
    pub(super) fn finish(self) -> io::Result<()> {
        let flushed = self.to.flush();
        self.error.map_or(flushed, Err)
    }
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.error.is_none() {
            self.error = self.to.write_all(escaped(&String::from_utf8_lossy(bytes)).as_bytes()).err();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' | '\t' => out.push(letter),
            letter if letter.is_control() => out.extend(letter.escape_default()),
            letter => out.push(letter),
        }
    }
    out
}

/// Writes a line. The [`Output`] keeps an error.
pub(super) fn line(to: &mut dyn Write, text: impl Display) {
    let _ = writeln!(to, "{text}");
}
