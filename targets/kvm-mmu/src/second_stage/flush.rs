//! [`FlushOwed`]: a `#[must_use]` token for a flush that is owed.

use crate::host::TlbFlush;
use crate::policy::Policy;
use gpa_model::{Gfn, StolenMask};

/// Whether translations were removed since the last flush, and which large leaves were among them.
#[derive(Debug)]
#[must_use = "what was taken away is still in TLBs; flush it"]
pub(crate) struct FlushOwed {
    owed: bool,
    /// The range of the removed large leaves: the first gfn, and the one after the last.
    large: Option<(Gfn, Gfn)>,
}

impl FlushOwed {
    pub(crate) const fn nothing() -> Self {
        Self { owed: false, large: None }
    }

    /// Whether a flush is owed.
    pub(crate) const fn is_owed(&self) -> bool {
        self.owed
    }

    /// Hands the owed flush over to the caller.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::nothing())
    }

    /// Adds what `other` owes.
    pub(crate) fn add(&mut self, mut other: Self) {
        if let Some((start, end)) = self.large {
            other.owe_large(start, end.offset_from(start).unwrap_or(0));
        }
        other.owed |= self.owed;
        *self = other;
    }

    /// A translation was removed.
    pub(crate) fn owe(&mut self) {
        self.owed = true;
    }

    /// A large leaf was removed: a range flush has to cover `pages` gfns from `gfn`.
    pub(crate) fn owe_large(&mut self, gfn: Gfn, pages: u64) {
        let (start, end) = self.large.unwrap_or((gfn, gfn));
        self.owed = true;
        self.large = Some((start.min(gfn), end.max(gfn.add(pages))));
    }

    /// Flushes `pages` gfns from `gfn` under every alias, extended to the removed large leaves, if a flush is owed
    /// (`kvm_flush_remote_tlbs_with_address()`).
    pub(crate) fn range(
        self,
        policy: &(impl Policy + ?Sized),
        stolen: StolenMask,
        gfn: Gfn,
        pages: u64,
        tlb: &mut dyn TlbFlush,
    ) {
        if self.owed {
            let (start, end) = self.large.unwrap_or((gfn, gfn));
            let (start, end) = (start.min(gfn), end.max(gfn.add(pages)));
            policy.flush_range(stolen, start, end.offset_from(start).unwrap_or(pages), tlb);
        }
    }

    /// Flushes everything, if a flush is owed (`kvm_flush_remote_tlbs()`).
    pub(crate) fn all(self, policy: &(impl Policy + ?Sized), tlb: &mut dyn TlbFlush) {
        if self.owed {
            policy.flush_all(tlb);
        }
    }
}
