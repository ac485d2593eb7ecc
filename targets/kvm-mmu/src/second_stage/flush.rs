//! A token for a flush that is owed.

use crate::host::TlbFlush;
use crate::policy::Policy;
use gpa_model::{Gfn, StolenMask};

/// Whether translations were taken away since the last flush, and which large ones.
#[derive(Debug)]
#[must_use = "what was taken away is still in TLBs; flush it"]
pub(crate) struct FlushOwed {
    owed: bool,
    /// From the first frame to the first after the last of the large leaves that were taken away.
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

    /// What was owed, and now is by who gets it.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::nothing())
    }

    /// What `other` owes is owed too.
    pub(crate) fn add(&mut self, mut other: Self) {
        if let Some((start, end)) = self.large {
            other.owe_large(start, end.offset_from(start).unwrap_or(0));
        }
        other.owed |= self.owed;
        *self = other;
    }

    /// A translation was taken away.
    pub(crate) fn owe(&mut self) {
        self.owed = true;
    }

    /// A large leaf was taken away: a range flush has to reach from `gfn` over `pages` frames.
    pub(crate) fn owe_large(&mut self, gfn: Gfn, pages: u64) {
        let (start, end) = self.large.unwrap_or((gfn, gfn));
        self.owed = true;
        self.large = Some((start.min(gfn), end.max(gfn.add(pages))));
    }

    /// Flush the frames from `gfn` under every alias, and what large leaves reach beyond them, if anything is owed
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

    /// Flush everything, if anything is owed (`kvm_flush_remote_tlbs()`).
    pub(crate) fn all(self, policy: &(impl Policy + ?Sized), tlb: &mut dyn TlbFlush) {
        if self.owed {
            policy.flush_all(tlb);
        }
    }
}
