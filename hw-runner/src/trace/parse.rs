//! Parses a trace. Every text gives a trace or an error with its place, in bounded time and space.

use super::{ARROW, INSIDE, LONG_HEADER, MAGIC, OTHER, Trace, VERSION, Variant, WATCHED};
use crate::kvm::alias_method::AliasMethod;
use crate::kvm::fingerprint::{Fingerprint, is_word};
use gpa_model::limits::FILE_BYTES;
use gpa_model::text::{ParseError, Words};
use gpa_model::{Exit, Fault, FrameSet, Gpa, Pfn, VmConfig};

/// How many words a line of the header may have.
const WORDS_MAX: usize = 32;
/// How many runs a trace may sum up.
const SAMPLES_MAX: u64 = 1 << 20;

/// Parses a trace.
///
/// # Errors
/// A [`ParseError`] at the first line that is malformed or exceeds a limit.
pub fn parse(text: &str) -> Result<Trace, ParseError> {
    if text.len() > FILE_BYTES {
        let expected = format!("at most {FILE_BYTES} bytes (limits::FILE_BYTES)");
        return Err(ParseError { line: 1, column: 1, expected, found: format!("{} bytes", text.len()) });
    }
    let Header { version, lines, fingerprint, samples } = header(text)?;
    let program = gpa_model::text::parse(&program_text(text, lines))?;
    let mut observations = vec![None; program.ops.len()];
    let mut variants = Vec::new();
    let mut seen = vec![Vec::new(); if version < WATCHED { 0 } else { program.ops.len() }];
    let mut ops = 0usize;
    let mut vm_seen = false;
    for (number, line) in body(text, lines) {
        let mut words = Words::new(line, number);
        if words.is_done() {
            continue;
        }
        if words.peek() == Some(OTHER) {
            words.next(OTHER)?;
            let Some(at) = ops.checked_sub(1).filter(|&at| observations.get(at).is_some_and(Option::is_some)) else {
                return Err(words.error("an observation, and then what was observed instead", "a variant of nothing"));
            };
            let word = words.next("how often")?;
            let times = words.number(word, samples.into())? as u32;
            variants.push(Variant { at, times, exit: observation(&program.vm, &mut words)? });
            continue;
        }
        if words.peek() == Some(INSIDE) {
            words.next(INSIDE)?;
            if version < WATCHED {
                return Err(
                    words.error(format!("nothing seen inside KVM before version {WATCHED}"), format!("`{INSIDE}`"))
                );
            }
            let observed = ops.checked_sub(1).filter(|&at| observations.get(at).is_some_and(Option::is_some));
            let Some(seen) = observed.and_then(|at| seen.get_mut(at)) else {
                return Err(words.error("an observation, and then what was seen inside", "an empty observation"));
            };
            seen.push(super::mmu_event::parse(&program.vm, &mut words)?);
            continue;
        }
        if words.peek() != Some(ARROW) {
            // The first line is the vm's, each other an op: the parser of programs has checked that.
            ops += usize::from(std::mem::replace(&mut vm_seen, true));
            continue;
        }
        words.next(ARROW)?;
        let place = ops.checked_sub(1).and_then(|at| observations.get_mut(at));
        let Some(place @ None) = place else {
            return Err(words.error("an op, and then at most one observation", "an observation of no op"));
        };
        *place = Some(observation(&program.vm, &mut words)?);
    }
    Ok(Trace { fingerprint, program, observations, seen, samples, variants })
}

/// The lines after the header, with their numbers.
fn body(text: &str, header: usize) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(i, line)| (i + 1, line)).skip(header)
}

/// The program alone, each line at its place in the trace, so that errors point there.
fn program_text(text: &str, header: usize) -> String {
    let mut out = format!("{} {}", gpa_model::text::MAGIC, gpa_model::text::VERSION);
    out.extend(std::iter::repeat_n('\n', header.min(text.lines().count())));
    for (number, line) in body(text, header) {
        if !matches!(Words::new(line, number).peek(), Some(ARROW | OTHER | INSIDE)) {
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

/// The header.
struct Header {
    version: u32,
    /// The number of lines, including the version.
    lines: usize,
    fingerprint: Fingerprint,
    samples: u32,
}

fn header(text: &str) -> Result<Header, ParseError> {
    let mut lines = text.lines().enumerate();
    let mut count = 0;
    let mut line = |expected: &str| match lines.next() {
        Some((i, line)) => {
            count = i + 1;
            Ok(Words::new(line, count))
        }
        None => {
            let found = if text.is_empty() { "an empty file" } else { "the end of the file" };
            let line = text.lines().count().max(1);
            Err(ParseError { line, column: 1, expected: expected.into(), found: found.into() })
        }
    };
    let version = version(&mut line(&format!("`{MAGIC} {VERSION}`"))?)?;
    let long = version >= LONG_HEADER;
    let mut fingerprint = Fingerprint::default();
    if long {
        fingerprint.cpu = one_word(&mut line("`cpu …`")?, "cpu")?;
        fingerprint.kernel = one_word(&mut line("`kernel …`")?, "kernel")?;
    }
    fingerprint.module = one_word(&mut line("`module …`")?, "module")?;
    if long {
        fingerprint.parameters = word_list(&mut line("`parameters …`")?, "parameters")?;
    }
    fingerprint.paging = one_word(&mut line("`paging …`")?, "paging")?;
    let mut words = line("`maxphyaddr …`")?;
    let bits = one_word(&mut words, "maxphyaddr")?;
    fingerprint.maxphyaddr = words.number(&bits, 64)? as u8;
    fingerprint.capabilities = word_list(&mut line("`capabilities …`")?, "capabilities")?;
    if long {
        let mut words = line("`realisation …`")?;
        let word = one_word(&mut words, "realisation")?;
        let names = AliasMethod::ALL.map(AliasMethod::name).join(", ");
        fingerprint.alias_method = AliasMethod::named(&word).ok_or_else(|| words.found(names, &word))?;
    }
    let mut words = line("`native yes` or `native no`")?;
    fingerprint.native = match one_word(&mut words, "native")?.as_str() {
        "yes" => true,
        "no" => false,
        word => return Err(words.found("yes or no", word)),
    };
    let mut samples = 1;
    if long {
        fingerprint.witness = word_list(&mut line("`witness …`")?, "witness")?;
        let mut words = line("`samples …`")?;
        let word = one_word(&mut words, "samples")?;
        samples = words.number(&word, SAMPLES_MAX)? as u32;
    }
    Ok(Header { version, lines: count, fingerprint, samples })
}

fn version(words: &mut Words<'_>) -> Result<u32, ParseError> {
    let expected = format!("`{MAGIC} {VERSION}`");
    let magic = words.next(&expected)?;
    if magic != MAGIC {
        return Err(words.found(expected, magic));
    }
    let word = words.next("a format version")?;
    let number = words.number(word, u64::from(u32::MAX))?;
    if number > u64::from(VERSION) {
        return Err(
            words.found(format!("format version {VERSION} or older (written by a newer hw-runner; update it)"), word)
        );
    }
    if number == 0 {
        return Err(words.found(format!("a format version from 1 to {VERSION}"), word));
    }
    words.end().map(|()| number as u32)
}

fn key(words: &mut Words<'_>, key: &str) -> Result<(), ParseError> {
    let expected = format!("`{key} …`");
    let word = words.next(&expected)?;
    if word == key { Ok(()) } else { Err(words.found(expected, word)) }
}

fn name(words: &mut Words<'_>) -> Result<String, ParseError> {
    let expected = "a word of letters, digits and -_.=";
    let word = words.next(expected)?;
    if is_word(word) { Ok(word.to_owned()) } else { Err(words.found(expected, word)) }
}

fn one_word(words: &mut Words<'_>, expected: &str) -> Result<String, ParseError> {
    key(words, expected)?;
    let word = name(words)?;
    if words.is_done() { Ok(word) } else { words.end().map(|()| word) }
}

fn word_list(words: &mut Words<'_>, expected: &str) -> Result<Vec<String>, ParseError> {
    key(words, expected)?;
    let mut all = Vec::new();
    while !words.is_done() {
        if all.len() == WORDS_MAX {
            return Err(words.error(format!("at most {WORDS_MAX} words"), "one more"));
        }
        all.push(name(words)?);
    }
    Ok(all)
}

/// Parses an observation after its arrow.
fn observation(vm: &VmConfig, words: &mut Words<'_>) -> Result<Exit, ParseError> {
    let expected = "done, memory, emulated, mmio, dirty, error, misattributed, not-found, refused, guest-fault, retry, pending, young, translated or unsupported";
    let exit = match words.next(expected)? {
        "done" => Exit::Done,
        "memory" => Exit::Memory(pfn(words)?),
        "emulated" => Exit::Emulated(pfn(words)?),
        "mmio" => Exit::Mmio(gpa(vm, words)?),
        "translated" => Exit::Translated(gpa(vm, words)?),
        "dirty" => Exit::Dirty(frames(vm, words)?),
        "young" => match words.next("yes or no")? {
            "yes" => Exit::Young(true),
            "no" => Exit::Young(false),
            word => return Err(words.found("yes or no", word)),
        },
        "retry" => Exit::Retry,
        "pending" => Exit::Pending,
        "guest-fault" => Exit::GuestFault(fault(words)?),
        "error" => Exit::Error,
        "misattributed" => Exit::MemoryFault,
        "not-found" => Exit::NotFound,
        "ring-full" => Exit::RingFull,
        "page-not-present" => Exit::PageNotPresent,
        "halted" => Exit::Halted,
        "page-ready" => Exit::PageReady(gpa(vm, words)?),
        "refused" => Exit::Refused,
        "interrupted" => Exit::Interrupted,
        "unsupported" => Exit::Unsupported,
        word => return Err(words.found(expected, word)),
    };
    words.end()?;
    Ok(exit)
}

/// The kind of page fault; none given means not present.
fn fault(words: &mut Words<'_>) -> Result<Fault, ParseError> {
    if words.is_done() {
        return Ok(Fault::NotPresent);
    }
    let expected = "not-present, protection, reserved or the end of the line";
    let word = words.next(expected)?;
    Fault::ALL.into_iter().find(|fault| fault.name() == word).ok_or_else(|| words.found(expected, word))
}

fn pfn(words: &mut Words<'_>) -> Result<Pfn, ParseError> {
    let word = words.next("the identity of a page, a number")?;
    Ok(Pfn::new(words.number(word, u64::from(u32::MAX))? as u32))
}

fn gpa(vm: &VmConfig, words: &mut Words<'_>) -> Result<Gpa, ParseError> {
    let word = words.next("a gfn, with @ALIAS or without")?;
    let gpa = words.gpa(vm, word)?;
    match vm.locate(gpa) {
        Some(_) => Ok(gpa),
        None => Err(words.found("a gfn of this VM", word)),
    }
}

fn frames(vm: &VmConfig, words: &mut Words<'_>) -> Result<FrameSet, ParseError> {
    let mut frames = FrameSet::EMPTY;
    let expected = "none, or gfns of this VM";
    if words.peek() == Some("none") {
        words.next(expected)?;
        return Ok(frames);
    }
    loop {
        let word = words.next(expected)?;
        let (gfn, alias) = vm.stolen().split(words.gpa(vm, word)?);
        match vm.frame(gfn).filter(|_| alias.is_none()) {
            Some(frame) => frames = frames.union(FrameSet::one(frame)),
            None => return Err(words.found(expected, word)),
        }
        if words.is_done() {
            return Ok(frames);
        }
    }
}
