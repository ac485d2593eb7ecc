//! Flushes that are owed: who takes a translation away gets a token that has to be turned into a flush.

use crate::policy::Policy;
use gpa_model::{FlushBackend, Gfn, StolenMask};

/// Whether translations were taken away since the last flush.
#[derive(Debug)]
#[must_use = "what was taken away is still in TLBs; flush it"]
pub(crate) struct FlushOwed(bool);

impl FlushOwed {
    pub(crate) const fn nothing() -> Self {
        Self(false)
    }

    /// A translation was taken away.
    pub(crate) fn owe(&mut self) {
        self.0 = true;
    }

    /// Flush the frames from `gfn` under every alias, if anything is owed (`kvm_flush_remote_tlbs_with_address()`).
    pub(crate) fn range<P: Policy>(self, stolen: StolenMask, gfn: Gfn, pages: u64, tlb: &mut FlushBackend) {
        if self.0 {
            P::flush_range(stolen, gfn, pages, tlb);
        }
    }

    /// Flush everything, if anything is owed (`kvm_flush_remote_tlbs()`).
    pub(crate) fn all<P: Policy>(self, tlb: &mut FlushBackend) {
        if self.0 {
            P::flush_all(tlb);
        }
    }
}
