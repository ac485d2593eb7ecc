//! The MMU notifier: the host takes pages away, and faults that looked a page up before must not map it after.

use gpa_model::{Hva, HvaRange};

/// Invalidations in progress, and the sequence number of those that have ended (`mmu_notifier_count`, `mmu_notifier_seq`).
#[derive(Debug)]
pub(crate) struct Notifier {
    /// Ended invalidations.
    pub(crate) mmu_seq: u64,
    in_progress: u32,
    /// First hva page and first page after the last, over all invalidations in progress.
    range: (u64, u64),
}

/// The first sequence number: near where 31 bits end, so that a comparison in too few bits shows.
const FIRST_SEQ: u64 = (1 << 31) - 2;

impl Notifier {
    pub(crate) const fn new() -> Self {
        Self { mmu_seq: FIRST_SEQ, in_progress: 0, range: (0, 0) }
    }

    /// `invalidate_range_start`.
    pub(crate) fn begin(&mut self, range: HvaRange) {
        let (start, end) = (range.start.page(), range.start.page() + u64::from(range.pages));
        self.range =
            if self.in_progress == 0 { (start, end) } else { (self.range.0.min(start), self.range.1.max(end)) };
        self.in_progress += 1;
    }

    /// `invalidate_range_end`. The sequence number changes before the count, so that a fault sees one or the other.
    pub(crate) fn end(&mut self) {
        self.mmu_seq += 1;
        self.in_progress = self.in_progress.saturating_sub(1);
    }

    /// Whether any invalidation is in progress.
    pub(crate) fn is_active(&self) -> bool {
        self.in_progress > 0
    }

    /// Whether a fault that looked `hva` up at `seq` must start again (`mmu_notifier_retry_hva()`).
    pub(crate) fn must_retry(&self, seq: u64, hva: Hva) -> bool {
        let inside = self.range.0 <= hva.page() && hva.page() < self.range.1;
        (self.is_active() && inside) || self.mmu_seq != seq
    }
}
