//! What a hypervisor gives the MMU: which page stands behind an hva, and how TLBs are flushed.

use gpa_model::RangeFlushFailed;
use gpa_model::{FlushBackend, Gpa, Host, HostPage, Level, Pfn, VcpuSet};

/// Why there is no page behind an hva (`KVM_PFN_ERR_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PfnError {
    /// It has to be read in first (`KVM_PFN_ERR_NEEDS_IO`). Whoever may sleep never sees this.
    NeedsIo,
    /// Nobody can have it: nothing is mapped there, or its memory failed (`KVM_PFN_ERR_FAULT`, `KVM_PFN_ERR_HWPOISON`).
    NoPage,
}

/// Which page stands behind an hva right now (`hva_to_pfn()`), and who holds it.
pub trait HostPages {
    /// The page, read in if it has to be, and held until it is [released](HostPages::release). While `hva` is being invalidated it may
    /// still be the old one.
    ///
    /// # Errors
    /// [`PfnError::NoPage`]: the access ends in [`Exit::Error`](gpa_model::Exit::Error), and nothing is mapped.
    fn pfn(&self, hva: HostPage) -> Result<Pfn, PfnError>;

    /// The same without sleep (`FOLL_NOWAIT`).
    ///
    /// # Errors
    /// A [`PfnError`].
    fn pfn_nowait(&self, hva: HostPage) -> Result<Pfn, PfnError> {
        self.pfn(hva)
    }

    /// Let go of a page once (`kvm_release_pfn_clean()`). What is mapped is not held: the notifier says when it has to go. Nothing to do
    /// where pages are not counted.
    fn release(&self, _pfn: Pfn) {}

    /// How large a host mapping `hva` is part of (`host_pfn_mapping_level()`). One that is being invalidated, even in part, is
    /// not large any more.
    fn level(&self, _hva: HostPage) -> Level {
        Level::Page4K
    }
}

impl HostPages for Host {
    fn pfn(&self, hva: HostPage) -> Result<Pfn, PfnError> {
        if self.is_gone(hva) {
            return Err(PfnError::NoPage);
        }
        let pfn = Host::pfn(self, hva);
        self.pins().take(pfn);
        Ok(pfn)
    }

    fn pfn_nowait(&self, hva: HostPage) -> Result<Pfn, PfnError> {
        if self.is_out(hva) { Err(PfnError::NeedsIo) } else { HostPages::pfn(self, hva) }
    }

    fn release(&self, pfn: Pfn) {
        self.pins().release(pfn);
    }

    fn level(&self, hva: HostPage) -> Level {
        Host::level(self, hva)
    }
}

/// What empties the TLBs of a VM's vCPUs. When a call returns, no vCPU translates by what it was told to forget.
pub trait TlbFlush {
    /// Whether ranges can be flushed (`kvm_available_flush_tlb_with_range()`).
    fn has_range(&self) -> bool;

    /// Flush `pages` pages from `gpa` on every vCPU: exactly this alias and no other.
    ///
    /// # Errors
    /// [`RangeFlushFailed`] if that did not work; nothing was flushed then.
    fn range(&mut self, gpa: Gpa, pages: u64) -> Result<(), RangeFlushFailed>;

    /// Flush everything on some vCPUs.
    fn on(&mut self, vcpus: VcpuSet);

    /// Flush everything (`kvm_flush_remote_tlbs()`).
    fn all(&mut self) {
        self.on(VcpuSet::ALL);
    }

    /// A table page is free: nothing leads to it, and its memory may become another's.
    fn freed(&mut self) {}
}

impl TlbFlush for FlushBackend {
    fn has_range(&self) -> bool {
        FlushBackend::has_range(self)
    }

    fn range(&mut self, gpa: Gpa, pages: u64) -> Result<(), RangeFlushFailed> {
        FlushBackend::range(self, gpa, pages)
    }

    fn on(&mut self, vcpus: VcpuSet) {
        FlushBackend::on(self, vcpus);
    }

    fn freed(&mut self) {
        FlushBackend::freed(self);
    }
}
