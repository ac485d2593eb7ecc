//! The content of a frame's page: its identity, for reads and for fetches, and the words that guests write.

use super::layout::ENTRIES;
use crate::host::memory::{PAGE_BYTES, Pages};
use gpa_model::Pfn;
use gpa_model::limits::OPS;

/// Offset of the stub: `mov eax, imm32; ret` with the page's identity, for instruction fetches.
pub(super) const STUB: usize = 0;
/// Offset of the identity for reads.
pub(super) const STAMP: usize = 8;
/// Offset of the words that guests write, one for each op of a program.
const WORDS: usize = 1024;
const _: () = assert!(WORDS + OPS * size_of::<u64>() <= PAGE_BYTES);

/// The offset of the word of op number `word`.
pub(crate) const fn word_offset(word: usize) -> usize {
    WORDS + word * size_of::<u64>()
}

/// Gives a page its identity, for reads and for fetches.
pub(crate) fn stamp(memory: &Pages, page: usize, pfn: Pfn) {
    memory.write_u64(page, STUB, stub(pfn));
    memory.write_u64(page, STAMP, pfn.raw().into());
}

/// A page with this identity and nothing else.
pub(crate) fn stamped(pfn: Pfn) -> [u64; ENTRIES] {
    let mut page = [0; ENTRIES];
    page[STUB / size_of::<u64>()] = stub(pfn);
    page[STAMP / size_of::<u64>()] = pfn.raw().into();
    page
}

/// The stub that returns `pfn`.
pub(super) const fn stub(pfn: Pfn) -> u64 {
    let [a, b, c, d] = pfn.raw().to_le_bytes();
    // b8 imm32 = mov eax, imm32; c3 = ret.
    u64::from_le_bytes([0xb8, a, b, c, d, 0xc3, 0x90, 0x90])
}
