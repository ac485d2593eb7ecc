//! A bit for each page of a memslot.

use smallvec::SmallVec;

/// One bit for each page of a slot.
#[derive(Clone, Debug, Default)]
pub(crate) struct PageBitmap(SmallVec<[u64; 1]>);

const WORD: u64 = u64::BITS as u64;

impl PageBitmap {
    pub(crate) fn new(pages: u64) -> Self {
        Self(SmallVec::from_elem(0, pages.div_ceil(WORD) as usize))
    }

    pub(crate) fn set(&mut self, page: u64) {
        if let Some(word) = self.0.get_mut((page / WORD) as usize) {
            *word |= 1 << (page % WORD);
        }
    }

    pub(crate) fn contains(&self, page: u64) -> bool {
        self.0.get((page / WORD) as usize).is_some_and(|word| word >> (page % WORD) & 1 != 0)
    }

    /// Clear one bit and tell what it was.
    pub(crate) fn take(&mut self, page: u64) -> bool {
        let bit = 1 << (page % WORD);
        self.0.get_mut((page / WORD) as usize).is_some_and(|word| {
            let was = *word & bit != 0;
            *word &= !bit;
            was
        })
    }

    /// The pages whose bits are set, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> {
        let words = self.0.iter().enumerate();
        words.flat_map(|(i, &word)| {
            (0..WORD).filter(move |bit| word >> bit & 1 != 0).map(move |bit| i as u64 * WORD + bit)
        })
    }
}
