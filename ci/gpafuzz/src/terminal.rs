//! What a person sees, and Ctrl-C.

pub mod interrupt;
pub mod progress;

use std::io::{self, Write};

/// Write results. A reader that has closed its end, such as `head`, has seen enough; that is no error.
pub fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// Write a line about what is going on, beside the results.
pub fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
