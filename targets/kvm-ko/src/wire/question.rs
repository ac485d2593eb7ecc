//! A question: its number, and a program as text, which is bounded, versioned and total already.

use super::QUESTION_BYTES;
use gpa_model::{Program, text};
use std::io::{self, Read, Write};

/// Ask question `number`, above 0, about `program`.
///
/// # Errors
/// If the other side is gone.
pub fn send(to: &mut impl Write, number: u64, program: &Program) -> io::Result<()> {
    let text = text::print(program);
    let length = u32::try_from(text.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut message = Vec::with_capacity(12 + text.len());
    message.extend_from_slice(&number.to_le_bytes());
    message.extend_from_slice(&length.to_le_bytes());
    message.extend_from_slice(text.as_bytes());
    to.write_all(&message)
}

/// Wait for a question; its number and its program.
///
/// # Errors
/// If the other side is gone, or what it sends is no question.
pub fn receive(from: &mut impl Read) -> io::Result<(u64, Program)> {
    let (mut number, mut length) = ([0; 8], [0; 4]);
    from.read_exact(&mut number)?;
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > QUESTION_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a question of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let text = String::from_utf8(bytes).map_err(|error| invalid(error.to_string()))?;
    let program = text::parse(&text).map_err(|error| invalid(error.to_string()))?;
    Ok((u64::from_le_bytes(number), program))
}
