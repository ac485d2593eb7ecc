//! What an answer is made of, and the parser that believes nothing.

use super::alarm::{Alarm, AlarmKind};
use super::answer::{HEADER_BYTES, MAGIC};
use super::{TEXT_BYTES, VERSION, key, outcome};
use gpa_model::limits::FRAMES;
use gpa_model::{Exit, Flush, GfnIndexed, Gpa, Program, Spte, VcpuSet, VmConfig};
use std::fmt;

/// One thing that a worker says of its program, in the order in which they happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The op with this number begins. Ops that are not carried out have no record, but for the following.
    Op(usize),
    /// The op with this number means something, but cannot be carried out in this state, which stays as it is.
    Unable(usize),
    /// How the op ended. Without one it never did.
    Exit(Exit),
    /// A flush was asked for.
    Flush(Flush),
    /// A table page is free.
    Freed,
    /// From now on a walk of the frame with this alias number finds this.
    Spte {
        /// The number of the alias.
        alias: usize,
        /// The frame.
        frame: usize,
        /// What is found.
        spte: Option<Spte>,
    },
    /// The kernel objects.
    Alarm(Box<Alarm>),
    /// At the end: something is kept by gfn.
    Key(GfnIndexed),
    /// The program is over, and its VM gone.
    End,
}

pub(super) mod tag {
    pub(crate) const OP: u8 = 1;
    pub(crate) const EXIT: u8 = 2;
    pub(crate) const FLUSH_ALL: u8 = 3;
    pub(crate) const FLUSH_RANGE: u8 = 4;
    pub(crate) const FREED: u8 = 5;
    pub(crate) const SPTE: u8 = 6;
    pub(crate) const ALARM: u8 = 7;
    pub(crate) const KEY: u8 = 8;
    pub(crate) const END: u8 = 9;
    pub(crate) const UNABLE: u8 = 10;
}

/// What was found where something else had to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The byte of the answer.
    pub at: usize,
    /// What had to be there.
    pub expected: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {} at byte {} of the answer", self.expected, self.at)
    }
}

impl std::error::Error for Malformed {}

/// The records of an answer, one after the other; the last is the first that is malformed.
#[derive(Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
    vm: &'a VmConfig,
    /// Ops of the program.
    ops: usize,
    /// The least number that the next op may have.
    next_op: usize,
    failed: bool,
}

impl<'a> Records<'a> {
    /// Those in `bytes`, which are the start of an answer to question `number` about `program`.
    ///
    /// # Errors
    /// [`Malformed`] if it is an answer to another question.
    pub fn of(bytes: &'a [u8], number: u64, program: &'a Program) -> Result<Self, Malformed> {
        let mut records = Self { bytes, at: 0, vm: &program.vm, ops: program.ops.len(), next_op: 0, failed: false };
        let head = [(MAGIC, "the mark of an answer"), (u64::from(VERSION), "this version"), (number, "this question")];
        for (right, expected) in head {
            if records.word(expected)? != right {
                return Err(Malformed { at: records.at, expected });
            }
        }
        let length = records.word("a length")?;
        let length = usize::try_from(length).ok().filter(|length| length + HEADER_BYTES <= bytes.len());
        let length = length.ok_or(Malformed { at: records.at, expected: "a length within the answer" })?;
        records.bytes = &bytes[..HEADER_BYTES + length];
        Ok(records)
    }

    fn take<const N: usize>(&mut self, expected: &'static str) -> Result<[u8; N], Malformed> {
        let found = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>());
        let found = *found.ok_or(Malformed { at: self.at, expected })?;
        self.at += N;
        Ok(found)
    }

    fn byte(&mut self, expected: &'static str) -> Result<u8, Malformed> {
        self.take::<1>(expected).map(|[byte]| byte)
    }

    fn word(&mut self, expected: &'static str) -> Result<u64, Malformed> {
        self.take(expected).map(u64::from_le_bytes)
    }

    fn below(&mut self, limit: usize, expected: &'static str) -> Result<usize, Malformed> {
        let at = self.at;
        let found = usize::from(u16::from_le_bytes(self.take(expected)?));
        if found < limit { Ok(found) } else { Err(Malformed { at, expected }) }
    }

    fn op(&mut self, at: usize) -> Result<usize, Malformed> {
        let op = self.below(self.ops, "the number of an op")?;
        if op < self.next_op {
            return Err(Malformed { at, expected: "a later op than the last" });
        }
        self.next_op = op + 1;
        Ok(op)
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let length = self.below(TEXT_BYTES + 1, "the length of a text")?;
        let bytes = self.bytes.get(self.at..self.at + length);
        let text = bytes.ok_or(Malformed { at: self.at, expected: "a text of that length" })?;
        self.at += length;
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    fn record(&mut self) -> Result<Record, Malformed> {
        let at = self.at;
        Ok(match self.byte("a record")? {
            tag::OP => Record::Op(self.op(at)?),
            tag::UNABLE => Record::Unable(self.op(at)?),
            tag::EXIT => {
                let (kind, word) = (self.byte("an exit")?, self.word("what belongs to an exit")?);
                Record::Exit(outcome::decode(kind, word).ok_or(Malformed { at, expected: "an exit" })?)
            }
            tag::FLUSH_ALL => {
                let bits = self.byte("vCPUs")?;
                let vcpus = (0..self.vm.vcpus()).filter(|vcpu| bits >> vcpu & 1 != 0);
                let others = vcpus.fold(VcpuSet::ALL, |left, vcpu| left.minus(VcpuSet::one(vcpu)));
                Record::Flush(Flush::All { vcpus: VcpuSet::ALL.minus(others) })
            }
            tag::FLUSH_RANGE => Record::Flush(Flush::Range {
                gpa: Gpa::new(self.word("an address")?),
                pages: self.word("a number of pages")?,
                ok: self.byte("whether it worked")? != 0,
            }),
            tag::FREED => Record::Freed,
            tag::SPTE => Record::Spte {
                alias: self.below(self.vm.stolen().alias_count(), "an alias")?,
                frame: self.below(FRAMES, "a frame")?,
                spte: Spte::from_raw(self.word("an entry")?),
            },
            tag::ALARM => {
                let kind = usize::from(self.byte("a kind of alarm")?);
                let kind = *AlarmKind::ALL.get(kind).ok_or(Malformed { at, expected: "a kind of alarm" })?;
                Record::Alarm(Box::new(Alarm { kind, function: self.text()?, text: self.text()? }))
            }
            tag::KEY => {
                let parts = key::Parts {
                    kind: self.byte("a key")?,
                    gfn: self.word("a gfn")?,
                    word: self.word("what belongs to a key")?,
                    level: self.byte("a level")?,
                    flags: self.byte("flags")?,
                };
                Record::Key(key::decode(&parts, self.vm.stolen()).ok_or(Malformed { at, expected: "a key" })?)
            }
            tag::END => Record::End,
            _ => return Err(Malformed { at, expected: "a record" }),
        })
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.at >= self.bytes.len() {
            return None;
        }
        let record = self.record();
        self.failed = record.is_err();
        Some(record)
    }
}
