//! A bit for each page of a memslot.

use crate::sync::{AtomicU64, Ordering};
use smallvec::SmallVec;

/// One bit for each page of a slot. Faults set bits without a lock.
#[derive(Debug, Default)]
pub(crate) struct PageBitmap(SmallVec<[AtomicU64; 1]>);

const WORD: u64 = u64::BITS as u64;

impl PageBitmap {
    pub(crate) fn new(pages: u64) -> Self {
        Self(std::iter::repeat_with(|| AtomicU64::new(0)).take(pages.div_ceil(WORD) as usize).collect())
    }

    fn word(&self, page: u64) -> Option<&AtomicU64> {
        self.0.get((page / WORD) as usize)
    }

    pub(crate) fn set(&self, page: u64) {
        if let Some(word) = self.word(page) {
            word.fetch_or(1 << (page % WORD), Ordering::AcqRel);
        }
    }

    pub(crate) fn contains(&self, page: u64) -> bool {
        self.word(page).is_some_and(|word| word.load(Ordering::Acquire) >> (page % WORD) & 1 != 0)
    }

    /// Clear one bit and tell what it was.
    pub(crate) fn take(&self, page: u64) -> bool {
        let bit = 1 << (page % WORD);
        self.word(page).is_some_and(|word| word.fetch_and(!bit, Ordering::AcqRel) & bit != 0)
    }

    /// The pages whose bits are set, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> {
        let words = self.0.iter().map(|word| word.load(Ordering::Acquire)).enumerate();
        words.flat_map(|(i, word)| {
            (0..WORD).filter(move |bit| word >> bit & 1 != 0).map(move |bit| i as u64 * WORD + bit)
        })
    }
}
