//! The MMU notifier: the host takes pages away, and faults that looked a page up before must not map it after.

use crate::sync::{AtomicU64, Ordering};
use gpa_model::{Hva, HvaRange};

/// Invalidations in progress, and the sequence number of those that have ended (`mmu_notifier_count`, `mmu_notifier_seq`).
/// Everything is written under the `mmu_lock`; the sequence number is read without it.
#[derive(Debug)]
pub(crate) struct Notifier {
    mmu_seq: AtomicU64,
    in_progress: AtomicU64,
    /// First hva page over all invalidations in progress.
    start: AtomicU64,
    /// First page after the last.
    end: AtomicU64,
}

/// The first sequence number: near where 31 bits end, so that a comparison in too few bits shows.
const FIRST_SEQ: u64 = (1 << 31) - 2;

impl Notifier {
    pub(crate) fn new() -> Self {
        let [in_progress, start, end] = std::array::from_fn(|_| AtomicU64::new(0));
        Self { mmu_seq: AtomicU64::new(FIRST_SEQ), in_progress, start, end }
    }

    /// Ended invalidations. Read before a page is looked up, it tells later whether the page may be out of date.
    pub(crate) fn mmu_seq(&self) -> u64 {
        self.mmu_seq.load(Ordering::Acquire)
    }

    /// `invalidate_range_start`.
    pub(crate) fn begin(&self, range: HvaRange) {
        let (mut start, mut end) = (range.start.page(), range.end());
        if self.is_active() {
            start = start.min(self.start.load(Ordering::Relaxed));
            end = end.max(self.end.load(Ordering::Relaxed));
        }
        self.start.store(start, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
        self.in_progress.fetch_add(1, Ordering::Relaxed);
    }

    /// `invalidate_range_end`. The sequence number changes before the count, so that a fault sees one or the other.
    pub(crate) fn end(&self) {
        self.mmu_seq.fetch_add(1, Ordering::Release);
        let count = self.in_progress.load(Ordering::Relaxed);
        self.in_progress.store(count.saturating_sub(1), Ordering::Release);
    }

    /// Whether any invalidation is in progress.
    pub(crate) fn is_active(&self) -> bool {
        self.in_progress.load(Ordering::Acquire) > 0
    }

    /// Whether a fault that looked `hva` up at `seq` must start again (`mmu_notifier_retry_hva()`).
    pub(crate) fn must_retry(&self, seq: u64, hva: Hva) -> bool {
        let inside = self.start.load(Ordering::Relaxed) <= hva.page() && hva.page() < self.end.load(Ordering::Relaxed);
        (self.is_active() && inside) || self.mmu_seq() != seq
    }
}
