//! The host's side of memory: which page stands behind each hva, and which hvas are being invalidated.

use crate::addr::{Hva, Pfn};
use crate::limits::{HOST_PAGES, NOTIFIER_WINDOWS};
use crate::op::{HvaRange, Op};

/// Host page tables, reduced to what a guest can tell apart: the identity of the page behind each hva.
///
/// A page that is unmapped is never seen again: whoever touches its hva next finds a new page, with a new [`Pfn`].
#[derive(Clone, Debug)]
pub struct Host {
    pfns: [Pfn; HOST_PAGES],
    next: u32,
    windows: [Option<HvaRange>; NOTIFIER_WINDOWS],
    changed: Option<HvaRange>,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            pfns: std::array::from_fn(|page| Pfn::new(page as u32 + 1)),
            next: HOST_PAGES as u32 + 1,
            windows: [None; NOTIFIER_WINDOWS],
            changed: None,
        }
    }
}

impl Host {
    /// The page behind `hva` (`hva_to_pfn()`). While `hva` is being invalidated this is still the old page, which must
    /// not be mapped any more.
    ///
    /// # Panics
    /// If `hva` is [`HOST_PAGES`] or above; programs cannot name such a page.
    pub fn pfn(&self, hva: Hva) -> Pfn {
        self.pfns[hva.page() as usize]
    }

    /// Whether an invalidation of `hva` has begun and not ended.
    pub fn invalidating(&self, hva: Hva) -> bool {
        self.windows.iter().flatten().any(|range| range.contains(hva))
    }

    /// Whether any invalidation is in progress.
    pub fn any_invalidating(&self) -> bool {
        self.windows.iter().any(Option::is_some)
    }

    /// The hvas being invalidated in window `window`.
    pub fn window(&self, window: u8) -> Option<HvaRange> {
        self.windows[usize::from(window)]
    }

    /// The hvas whose page, or whose invalidation, the op applied last has changed.
    pub fn changed(&self) -> Option<HvaRange> {
        self.changed
    }

    /// Carry out the host's part of an accepted op, before the target and the model see it.
    pub fn apply(&mut self, op: &Op) {
        self.changed = match *op {
            Op::Unmap { range, .. } => {
                self.replace(range);
                Some(range)
            }
            Op::UnmapBegin { window, range } => {
                self.windows[usize::from(window)] = Some(range);
                Some(range)
            }
            Op::UnmapEnd { window } => {
                let range = self.windows[usize::from(window)].take();
                if let Some(range) = range {
                    self.replace(range);
                }
                range
            }
            _ => None,
        };
    }

    fn replace(&mut self, range: HvaRange) {
        for hva in range.iter() {
            self.pfns[hva.page() as usize] = Pfn::new(self.next);
            self.next += 1;
        }
    }
}
