//! How an [`Exit`] is written: a number for its kind, and a word.

use gpa_model::{Exit, Fault, FrameSet, Gpa, Pfn};

/// The number and the word of `exit`.
pub(super) fn encode(exit: &Exit) -> (u8, u64) {
    match *exit {
        Exit::Done => (0, 0),
        Exit::Memory(pfn) => (1, pfn.raw().into()),
        Exit::Emulated(pfn) => (2, pfn.raw().into()),
        Exit::Mmio(gpa) => (3, gpa.raw()),
        Exit::Retry => (4, 0),
        Exit::Pending => (5, 0),
        Exit::Dirty(frames) => (6, frames.bits()),
        Exit::Young(young) => (7, young.into()),
        Exit::Translated(gpa) => (8, gpa.raw()),
        Exit::GuestFault(fault) => (9, fault as u64),
        Exit::Error => (10, 0),
        Exit::MemoryFault => (11, 0),
        Exit::NotFound => (12, 0),
        Exit::Refused => (13, 0),
        Exit::RingFull => (14, 0),
        Exit::PageNotPresent => (15, 0),
        Exit::Halted => (16, 0),
        Exit::PageReady(gpa) => (17, gpa.raw()),
        Exit::Unsupported => (18, 0),
        Exit::Interrupted => (19, 0),
    }
}

/// The inverse; `None` if there is no such exit.
pub(super) fn decode(kind: u8, word: u64) -> Option<Exit> {
    let pfn = || u32::try_from(word).ok().map(Pfn::new);
    Some(match kind {
        0 => Exit::Done,
        1 => Exit::Memory(pfn()?),
        2 => Exit::Emulated(pfn()?),
        3 => Exit::Mmio(Gpa::new(word)),
        4 => Exit::Retry,
        5 => Exit::Pending,
        6 => Exit::Dirty(FrameSet::from_bits(word)),
        7 => Exit::Young(word != 0),
        8 => Exit::Translated(Gpa::new(word)),
        9 => Exit::GuestFault(*Fault::ALL.get(usize::try_from(word).ok()?)?),
        10 => Exit::Error,
        11 => Exit::MemoryFault,
        12 => Exit::NotFound,
        13 => Exit::Refused,
        14 => Exit::RingFull,
        15 => Exit::PageNotPresent,
        16 => Exit::Halted,
        17 => Exit::PageReady(Gpa::new(word)),
        18 => Exit::Unsupported,
        19 => Exit::Interrupted,
        _ => return None,
    })
}
