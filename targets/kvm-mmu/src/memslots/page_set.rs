//! A set of pages of a memslot, kept as a list, because it holds few pages of very many.

use crate::sync::{AtomicU64, Lock, Ordering};
use smallvec::SmallVec;

/// Page numbers in the memslot, in ascending order. Faults read it, and add to it, without the `mmu_lock`.
#[derive(Debug, Default)]
pub(crate) struct PageSet {
    /// The number of pages. Most sets are empty and are asked often.
    len: AtomicU64,
    pages: Lock<SmallVec<[u64; 4]>>,
}

impl PageSet {
    pub(crate) fn insert(&self, page: u64) {
        let mut pages = self.pages.lock();
        if let Err(at) = pages.binary_search(&page) {
            pages.insert(at, page);
            self.len.store(pages.len() as u64, Ordering::Release);
        }
    }

    pub(crate) fn remove(&self, page: u64) {
        let _taken = self.take(page, 1);
    }

    /// Removes the pages of the range, and returns them.
    pub(crate) fn take(&self, first: u64, pages: u64) -> SmallVec<[u64; 16]> {
        let mut all = self.pages.lock();
        let start = all.partition_point(|&page| page < first);
        let end = all.partition_point(|&page| page < first.saturating_add(pages));
        let taken = all.drain(start..end).collect();
        self.len.store(all.len() as u64, Ordering::Release);
        taken
    }

    pub(crate) fn contains(&self, page: u64) -> bool {
        self.touches(page, 1)
    }

    /// Whether any of `pages` pages from `first` is in the set.
    pub(crate) fn touches(&self, first: u64, pages: u64) -> bool {
        self.len.load(Ordering::Acquire) != 0 && {
            let all = self.pages.lock();
            let at = all.partition_point(|&page| page < first);
            all.get(at).is_some_and(|&page| page - first < pages)
        }
    }

    /// The pages in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> {
        self.pages.lock().clone().into_iter()
    }
}
