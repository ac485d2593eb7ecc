//! Parsing a program: bounded, total, and exact about where it stopped.

use super::op_line::parse_op_words;
use super::words::{ParseError, Words};
use super::{MAGIC, VERSION};
use crate::limits::{COMMENT_LINES, FILE_BYTES, OPS};
use crate::program::Program;

/// Read a program.
///
/// # Errors
/// A [`ParseError`] at the first line that cannot be read, or that goes over a limit.
pub fn parse(text: &str) -> Result<Program, ParseError> {
    let at_start = |expected: String, found: String| ParseError { line: 1, column: 1, expected, found };
    if text.len() > FILE_BYTES {
        return Err(at_start(
            format!("at most {FILE_BYTES} bytes (limits::FILE_BYTES)"),
            format!("{} bytes", text.len()),
        ));
    }
    let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
    let (number, first) =
        lines.next().ok_or_else(|| at_start(format!("`{MAGIC} {VERSION}`"), "an empty file".into()))?;
    check_version(&mut Words::new(first, number))?;

    let mut comment = Vec::new();
    let mut vm = None;
    let mut ops = Vec::new();
    let mut last = number;
    for (number, line) in lines {
        last = number;
        let mut words = Words::new(line, number);
        if words.is_done() {
            if let (None, Some(kept)) = (vm, line.trim_start().strip_prefix('#')) {
                if comment.len() == COMMENT_LINES {
                    return Err(
                        words.error(format!("at most {COMMENT_LINES} comment lines (limits::COMMENT_LINES)"), "more")
                    );
                }
                comment.push(kept.strip_prefix(' ').unwrap_or(kept).trim_end().to_owned());
            }
            continue;
        }
        match &vm {
            None => vm = Some(words.vm()?),
            Some(_) if ops.len() == OPS => {
                return Err(words.error(format!("at most {OPS} ops (limits::OPS)"), "one more"));
            }
            Some(vm) => ops.push(parse_op_words(vm, &mut words)?),
        }
    }
    let vm = vm.ok_or_else(|| ParseError {
        line: last,
        column: 1,
        expected: "`vm stolen=… vcpus=… base=… flush=…`".into(),
        found: "the end of the file".into(),
    })?;
    Ok(Program { vm, ops, comment })
}

fn check_version(words: &mut Words<'_>) -> Result<(), ParseError> {
    let expected = format!("`{MAGIC} {VERSION}`");
    let magic = words.next(&expected)?;
    if magic != MAGIC {
        return Err(words.found(expected, magic));
    }
    let version = words.next("a format version")?;
    let number = words.number(version, u64::from(u32::MAX))?;
    if number > u64::from(VERSION) {
        return Err(
            words.found(format!("format version {VERSION} or older (written by a newer gpafuzz; update it)"), version)
        );
    }
    if number == 0 {
        return Err(words.found(format!("a format version from 1 to {VERSION}"), version));
    }
    words.end()
}
