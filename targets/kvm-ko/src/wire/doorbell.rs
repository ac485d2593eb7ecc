//! What a worker sends when an answer is complete.

use std::io::{self, Read, Write};

/// The answer to a question is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doorbell {
    /// The number of the question; 0 for what the worker says of itself when it is ready.
    pub number: u64,
    /// How many bytes of the file are the answer.
    pub bytes: u64,
}

impl Doorbell {
    /// Ring.
    ///
    /// # Errors
    /// If the other side is gone.
    pub fn send(&self, to: &mut impl Write) -> io::Result<()> {
        let mut message = [0; 16];
        message[..8].copy_from_slice(&self.number.to_le_bytes());
        message[8..].copy_from_slice(&self.bytes.to_le_bytes());
        to.write_all(&message)
    }

    /// Wait for one.
    ///
    /// # Errors
    /// If the other side is gone, or the time is up.
    pub fn receive(from: &mut impl Read) -> io::Result<Self> {
        let mut message = [0; 16];
        from.read_exact(&mut message)?;
        let word = |half: usize| u64::from_le_bytes(std::array::from_fn(|byte| message[8 * half + byte]));
        Ok(Self { number: word(0), bytes: word(1) })
    }
}
