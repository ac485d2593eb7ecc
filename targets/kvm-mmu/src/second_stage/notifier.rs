//! The state of the MMU notifier: it lets a fault find out that its page was taken away after the look-up.

use crate::sync::{AtomicU64, Ordering};
use gpa_model::{Gfn, HostPage, HostPageRange};

/// The invalidations in progress, and the sequence number of those that have ended (`mmu_notifier_count`,
/// `mmu_notifier_seq`). All fields are written under the `mmu_lock`; the sequence number is read without it.
#[derive(Debug)]
pub(crate) struct Notifier {
    mmu_seq: AtomicU64,
    /// The host pages that are being taken away.
    hvas: Window,
    /// The gfns whose mappings are being zapped (`mmu_invalidate_range_start`).
    gfns: Window,
}

/// The first sequence number. It is close to 2^31, so that a comparison of too few bits fails.
const FIRST_SEQ: u64 = (1 << 31) - 2;

impl Notifier {
    pub(crate) fn new() -> Self {
        Self { mmu_seq: AtomicU64::new(FIRST_SEQ), hvas: Window::new(), gfns: Window::new() }
    }

    /// The sequence number. A fault reads it before it looks up its page, and compares it under the lock.
    pub(crate) fn mmu_seq(&self) -> u64 {
        self.mmu_seq.load(Ordering::Acquire)
    }

    /// `invalidate_range_start`.
    pub(crate) fn begin(&self, range: HostPageRange) {
        self.hvas.begin(range.start.page(), range.end());
    }

    /// `invalidate_range_end`. The sequence number changes before the count, so a fault sees at least one of the two.
    pub(crate) fn end(&self) {
        self.mmu_seq.fetch_add(1, Ordering::Release);
        self.hvas.end();
    }

    /// A zap of the mappings of `pages` gfns from `first` begins.
    pub(crate) fn begin_gfns(&self, first: Gfn, pages: u64) {
        self.gfns.begin(first.raw(), first.add(pages).raw());
    }

    /// The zap has ended.
    pub(crate) fn end_gfns(&self) {
        self.mmu_seq.fetch_add(1, Ordering::Release);
        self.gfns.end();
    }

    /// Attributes have changed: a fault that compared the old ones starts again. (KVM holds an invalidation open for the whole change.
    /// Here [`Attributes`](crate::memslots::attributes::Attributes) say what is changing.)
    pub(crate) fn end_conversion(&self) {
        self.mmu_seq.fetch_add(1, Ordering::Release);
    }

    /// Whether any invalidation is in progress.
    pub(crate) fn is_active(&self) -> bool {
        self.hvas.is_active() || self.gfns.is_active()
    }

    /// Whether the mappings of any of `pages` gfns from `first` are being zapped.
    pub(crate) fn is_zapping(&self, first: Gfn, pages: u64) -> bool {
        self.gfns.touches(first.raw(), first.add(pages).raw())
    }

    /// Whether a fault for `gfn` that looked up `hva` at `seq` has to start again (`mmu_notifier_retry_hva()`).
    pub(crate) fn must_retry(&self, seq: u64, hva: HostPage, gfn: Gfn) -> bool {
        self.hvas.touches(hva.page(), hva.page() + 1) || self.is_zapping(gfn, 1) || self.mmu_seq() != seq
    }
}

/// One range that contains all ranges in progress: the first page, and the one after the last.
#[derive(Debug)]
struct Window {
    in_progress: AtomicU64,
    start: AtomicU64,
    end: AtomicU64,
}

impl Window {
    fn new() -> Self {
        let [in_progress, start, end] = std::array::from_fn(|_| AtomicU64::new(0));
        Self { in_progress, start, end }
    }

    fn begin(&self, mut start: u64, mut end: u64) {
        if self.is_active() {
            start = start.min(self.start.load(Ordering::Relaxed));
            end = end.max(self.end.load(Ordering::Relaxed));
        }
        self.start.store(start, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
        self.in_progress.fetch_add(1, Ordering::Relaxed);
    }

    fn end(&self) {
        let count = self.in_progress.load(Ordering::Relaxed);
        self.in_progress.store(count.saturating_sub(1), Ordering::Release);
    }

    fn is_active(&self) -> bool {
        self.in_progress.load(Ordering::Acquire) > 0
    }

    fn touches(&self, start: u64, end: u64) -> bool {
        self.is_active() && start < self.end.load(Ordering::Relaxed) && self.start.load(Ordering::Relaxed) < end
    }
}
