//! The worker's side of an answer.

use super::alarm::Alarm;
use super::record::{Record, tag};
use super::{TEXT_BYTES, VERSION, key, outcome};
use gpa_model::{Flush, Spte};
use std::sync::atomic::{Ordering, compiler_fence};

/// What an answer begins with: "kvm-ko", and two zeros.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"kvm-ko\0\0");
/// The mark, the version, the number of the question, and how many bytes follow.
pub(super) const HEADER_BYTES: usize = 4 * size_of::<u64>();
/// Where the last of these is.
const LENGTH_AT: usize = HEADER_BYTES - size_of::<u64>();

/// Writes an answer into memory that the other side sees.
#[derive(Debug)]
pub struct Answer<'a> {
    bytes: &'a mut [u8],
    /// Where the next record goes.
    at: usize,
    /// Whether there was no room for one.
    full: bool,
}

impl<'a> Answer<'a> {
    /// Begin the answer to question `number` in `bytes`.
    ///
    /// # Panics
    /// If `bytes` does not even hold the start of an answer.
    pub fn begin(bytes: &'a mut [u8], number: u64) -> Self {
        let mut answer = Self { bytes, at: 0, full: false };
        [MAGIC, VERSION.into(), number, 0].into_iter().for_each(|word| answer.put(&word.to_le_bytes()));
        assert!(!answer.full, "memory for an answer");
        answer.publish();
        answer
    }

    /// Whether something was lost because there was no room for it.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// How many bytes of the file are the answer, header and all.
    pub fn bytes(&self) -> usize {
        self.at
    }

    /// Add `record`. What it says is there for the other side when this returns, whatever happens next.
    pub fn add(&mut self, record: &Record) {
        let start = self.at;
        match record {
            Record::Op(at) => self.tagged(tag::OP, &[&short(*at)]),
            Record::Unable(at) => self.tagged(tag::UNABLE, &[&short(*at)]),
            Record::Exit(exit) => {
                let (kind, word) = outcome::encode(exit);
                self.tagged(tag::EXIT, &[&[kind], &word.to_le_bytes()]);
            }
            Record::Flush(Flush::All { vcpus }) => self.tagged(tag::FLUSH_ALL, &[&[vcpus.bits()]]),
            Record::Flush(Flush::Range { gpa, pages, ok }) => {
                let parts: [&[u8]; 3] = [&gpa.raw().to_le_bytes(), &pages.to_le_bytes(), &[u8::from(*ok)]];
                self.tagged(tag::FLUSH_RANGE, &parts);
            }
            Record::Freed => self.tagged(tag::FREED, &[]),
            Record::Spte { alias, frame, spte } => {
                let raw = spte.map_or(0, Spte::raw);
                self.tagged(tag::SPTE, &[&short(*alias), &short(*frame), &raw.to_le_bytes()]);
            }
            Record::Alarm(alarm) => self.alarm(alarm),
            Record::Key(keyed) => {
                let key::Parts { kind, gfn, word, level, flags } = key::encode(keyed);
                self.tagged(tag::KEY, &[&[kind], &gfn.to_le_bytes(), &word.to_le_bytes(), &[level, flags]]);
            }
            Record::End => self.tagged(tag::END, &[]),
        }
        if self.full {
            self.at = start;
        }
        self.publish();
    }

    fn alarm(&mut self, alarm: &Alarm) {
        self.tagged(tag::ALARM, &[&[alarm.kind as u8]]);
        for text in [&alarm.function, &alarm.text] {
            let end = text.floor_char_boundary(TEXT_BYTES);
            self.put(&short(end));
            self.put(&text.as_bytes()[..end]);
        }
    }

    fn tagged(&mut self, tag: u8, parts: &[&[u8]]) {
        self.put(&[tag]);
        parts.iter().for_each(|part| self.put(part));
    }

    fn put(&mut self, bytes: &[u8]) {
        match self.bytes.get_mut(self.at..self.at + bytes.len()) {
            Some(place) if !self.full => {
                place.copy_from_slice(bytes);
                self.at += bytes.len();
            }
            _ => self.full = true,
        }
    }

    /// Let what was written count: first the record, then the length. The other side looks when this one has rung or is gone, so
    /// only the compiler must be kept from changing the order.
    fn publish(&mut self) {
        compiler_fence(Ordering::Release);
        let length = (self.at.saturating_sub(HEADER_BYTES)) as u64;
        self.bytes[LENGTH_AT..HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
        compiler_fence(Ordering::Release);
    }
}

/// Numbers of ops, aliases and frames, and lengths of texts, take two bytes.
fn short(number: usize) -> [u8; 2] {
    u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::{AlarmKind, Records};
    use super::*;
    use gpa_model::{Exit, GfnIndexed, Level, Pfn, Program, Rights, VcpuSet, text};

    fn program() -> Program {
        let text = "gpafuzz-program 1\nvm stolen=40 vcpus=2 base=0x1e0 flush=works\nv0 read 0x1e0\nage hva=0 pages=1\n";
        text::parse(text).expect("a program")
    }

    fn everything() -> Vec<Record> {
        let alarm = Alarm { kind: AlarmKind::Warn, function: "make_spte".into(), text: "spte.c:242\nrmap_add".into() };
        let spte = Spte::new(Pfn::new(7), Rights::RX).map(|spte| spte.at_level(Level::Page2M));
        let gpa = program().vm.gpa(0, 1);
        vec![
            Record::Op(0),
            Record::Flush(Flush::All { vcpus: VcpuSet::one(1) }),
            Record::Flush(Flush::Range { gpa, pages: 512, ok: false }),
            Record::Freed,
            Record::Spte { alias: 1, frame: 63, spte },
            Record::Spte { alias: 0, frame: 0, spte: None },
            Record::Alarm(Box::new(alarm)),
            Record::Exit(Exit::Memory(Pfn::new(7))),
            Record::Unable(1),
            Record::Key(GfnIndexed::Rmap { gfn: 0x1e0, gpa, level: Level::Page4K, idle: true }),
            Record::Key(GfnIndexed::direct_page(0x200, program().vm.stolen().alias(1), 2)),
            Record::End,
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        let (mut bytes, program) = (vec![0; 4096], program());
        let mut answer = Answer::begin(&mut bytes, 9);
        everything().iter().for_each(|record| answer.add(record));
        assert!(!answer.is_full());
        let length = answer.bytes();
        let records: Result<Vec<Record>, _> = Records::of(&bytes[..length], 9, &program).expect("a header").collect();
        assert_eq!(records, Ok(everything()));
        let other = Records::of(&bytes[..length], 8, &program).map(drop);
        assert_eq!(other.map_err(|error| error.expected), Err("this question"));
    }

    #[test]
    fn what_does_not_fit_is_left_out_as_a_whole() {
        let (program, mut enough) = (program(), vec![0; 4096]);
        let mut whole = Answer::begin(&mut enough, 1);
        everything().iter().for_each(|record| whole.add(record));
        for room in HEADER_BYTES..whole.bytes() {
            let mut bytes = vec![0; room];
            let mut answer = Answer::begin(&mut bytes, 1);
            everything().iter().for_each(|record| answer.add(record));
            assert!(answer.is_full());
            let length = answer.bytes();
            let records: Vec<Record> = Records::of(&bytes[..length], 1, &program)
                .expect("a header")
                .map(|record| record.expect("whole"))
                .collect();
            assert_eq!(records, everything()[..records.len()], "{room}");
        }
    }

    /// Every byte of an answer, changed to every value: the parser ends, and says where or what.
    #[test]
    fn no_byte_makes_the_parser_fail() {
        let (mut bytes, program) = (vec![0; 4096], program());
        let mut answer = Answer::begin(&mut bytes, 1);
        everything().iter().for_each(|record| answer.add(record));
        let length = answer.bytes();
        let mut malformed = 0;
        for at in 0..length {
            for value in 0..=u8::MAX {
                let mut bytes = bytes[..length].to_vec();
                bytes[at] = value;
                match Records::of(&bytes, 1, &program) {
                    Ok(records) => malformed += records.filter(Result::is_err).count(),
                    Err(error) => assert!(error.at <= length),
                }
            }
        }
        assert!(malformed > length, "{malformed}");
    }
}
