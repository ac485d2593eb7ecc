//! Feature cells: what situations a program reached, as a sparse list of numbers. Coverage that needs no toolchain, works
//! on anybody's [`Mmu`](gpa_model::Mmu), and says something a person understands.

use gpa_model::{Exit, Flush, FrameSet, Op, SlotKind, Spte};

use crate::observe::Step;

/// How many cells there are.
pub const CELLS: usize = 1 << 16;

/// The cells a program reached, each once, in the order in which it reached them.
#[derive(Debug)]
pub struct Features {
    cells: Vec<u16>,
    /// One bit for each cell: few enough to stay near the processor.
    reached: Box<[u64; CELLS / 64]>,
    previous: u64,
}

impl Default for Features {
    fn default() -> Self {
        Self { cells: Vec::new(), reached: Box::new([0; CELLS / 64]), previous: 0 }
    }
}

impl Features {
    /// A new program begins.
    pub fn reset(&mut self) {
        for cell in self.cells.drain(..) {
            self.reached[usize::from(cell) / 64] = 0;
        }
        self.previous = 0;
    }

    /// The cells reached so far.
    pub fn cells(&self) -> &[u16] {
        &self.cells
    }

    /// Note where a step has led: the op with its outcome in its situation, and the pair of it and the op before.
    pub fn note(&mut self, step: &Step<'_>) {
        let outcome = step.op.kind() as u64 | exit_class(&step.exit) << 6;
        let situation = situation(step);
        self.touch(mix(outcome | flush_class(step.flushes) << 11 | situation << 14));
        self.touch(mix(outcome | self.previous << 14 | 1 << 40));
        self.previous = outcome | (situation & 7) << 11;
    }

    fn touch(&mut self, hash: u64) {
        let cell = (hash >> 48) as u16;
        let (word, bit) = (&mut self.reached[usize::from(cell) / 64], 1 << (cell % 64));
        if *word & bit == 0 {
            *word |= bit;
            self.cells.push(cell);
        }
    }
}

fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 29).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (value ^ value >> 32).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

const fn exit_class(exit: &Exit) -> u64 {
    match exit {
        Exit::Done => 0,
        Exit::Memory(_) => 1,
        Exit::Mmio(_) => 2,
        Exit::Retry => 3,
        Exit::Pending => 4,
        Exit::Dirty(frames) => 5 + frames.is_empty() as u64,
        Exit::Young(young) => 7 + *young as u64,
        Exit::Translated(_) => 9,
        Exit::GuestFault(_) => 10,
        Exit::Error => 11,
        Exit::Refused => 13,
        Exit::Emulated(_) => 14,
        Exit::NotFound => 15,
        Exit::RingFull => 16,
        Exit::MemoryFault => 17,
        Exit::PageNotPresent => 18,
        Exit::Halted => 19,
        Exit::PageReady(_) => 20,
        Exit::Interrupted => 21,
        Exit::Unsupported => 12,
    }
}

/// None, full, ranges that worked, ranges of which one failed.
fn flush_class(flushes: &[Flush]) -> u64 {
    let failed = flushes.iter().any(|flush| matches!(flush, Flush::Range { ok: false, .. }));
    match flushes {
        [] => 0,
        _ if failed && flushes.len() > 1 => 4,
        _ if failed => 3,
        [Flush::All { .. }, ..] => 1,
        _ => 2,
    }
}

/// Alias class (3 bits), slot kind (3), windows open (2), what was and is mapped (4), changes by this op (4), levels of the
/// leaf before and after it (4).
fn situation(step: &Step<'_>) -> u64 {
    let model = step.model;
    let mut bits = u64::from(model.slot_change_pending()) << 6 | u64::from(step.host.any_invalidating()) << 7;
    if let Some((frame, alias)) = step.accessed_frame() {
        let number = model.vm().stolen().alias_index(alias);
        let others = (0..step.view.aliases()).filter(|&other| other != number);
        let (mut present, mut writable) = (false, false);
        for other in others {
            present |= step.view.present(other).contains(frame);
            writable |= step.view.writable(other).contains(frame);
        }
        let was = step.view.before(number, frame).map_or(0, |spte| 1 + u64::from(spte.rights().bits() >> 1 & 1));
        bits |= (number.min(3) as u64) | slot_class(model.slot_kind(frame)) << 3;
        bits |= was << 8 | u64::from(present) << 10 | u64::from(writable) << 11;
        let level = |spte: Option<Spte>| spte.map_or(0, |spte| spte.level() as u64);
        bits |= level(step.view.before(number, frame)) << 16 | level(step.view.now(number, frame)) << 18;
    } else if let Op::GuestWalk { root, .. } | Op::GuestAccess { root, .. } = step.op {
        let fault = if let Exit::GuestFault(fault) = step.exit { 1 + fault as u64 } else { 0 };
        bits |=
            u64::from(!model.vm().stolen().split(*root).1.is_none()) | fault << 3 | (model.vm().paging() as u64) << 8;
    } else if let Op::Slot { id, .. } | Op::SlotBegin { id, .. } | Op::DirtyGet { id } | Op::DirtyClear { id, .. } =
        step.op
    {
        bits |= u64::from(id.is_internal());
        bits |= slot_class(model.slot_frames(*id).first().map_or(SlotKind::Hole, |frame| model.slot_kind(frame))) << 3;
    }
    let (mut lost, mut base, mut alias) = (FrameSet::EMPTY, false, false);
    for number in 0..step.view.aliases() {
        let changed = step.view.changed(number);
        lost = lost.union(changed.minus(step.view.present(number)));
        base |= number == 0 && !changed.is_empty();
        alias |= number != 0 && !changed.is_empty();
    }
    let lost = (usize::BITS - lost.len().leading_zeros()).min(3);
    bits | u64::from(base) << 12 | u64::from(alias) << 13 | u64::from(lost) << 14
}

const fn slot_class(kind: SlotKind) -> u64 {
    kind as u64
}
