//! The wire between the fuzzer and its worker.
//!
//! Three files lead to a worker: a socket for [`question`]s and the [`Doorbell`]s that answer them, a file in memory that both
//! sides see, into which the worker writes its [`Answer`] while it carries the program out, and another for what the kernel says.
//! The answer is a list of [`Record`]s, each complete before the next begins: whoever looks, at any time and whatever has become of the
//! worker, finds all that happened until then.
//!
//! What comes from a worker is believed no more than a stranger's file: lengths are bounded by [`ANSWER_BYTES`], numbers by the program
//! that was asked, and what does not fit is [`Malformed`], with its place.

mod alarm;
mod answer;
mod doorbell;
mod hello;
mod key;
mod outcome;
pub mod question;
mod record;

pub use alarm::{Alarm, AlarmKind};
pub use answer::Answer;
pub use doorbell::Doorbell;
pub use hello::Hello;
pub use record::{Malformed, Record, Records};

/// Both sides must have the same. It changes with every change of a message.
pub const VERSION: u32 = 1;
/// Bytes of an answer: [`OPS`](gpa_model::limits::OPS) ops that each change every name of every frame take half of it.
pub const ANSWER_BYTES: usize = 4 << 20;
/// Bytes of a question.
pub const QUESTION_BYTES: usize = gpa_model::limits::FILE_BYTES;
/// Bytes of what the kernel says for one program; the rest is lost.
pub const LOG_BYTES: usize = 1 << 20;
/// Bytes of a line about an alarm.
pub const TEXT_BYTES: usize = 4096;
