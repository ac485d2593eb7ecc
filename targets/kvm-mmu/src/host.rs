//! What a hypervisor provides: the page behind an hva, and TLB flushes.

use gpa_model::RangeFlushFailed;
use gpa_model::{FlushBackend, Gpa, Host, HostPage, Level, Pfn, VcpuSet};

/// Why there is no page behind an hva (`KVM_PFN_ERR_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PfnError {
    /// The page has to be read in (`KVM_PFN_ERR_NEEDS_IO`). A caller that may sleep never gets this.
    NeedsIo,
    /// There is no page: nothing is mapped there, or its memory failed (`KVM_PFN_ERR_FAULT`, `KVM_PFN_ERR_HWPOISON`).
    NoPage,
}

/// The page behind an hva (`hva_to_pfn()`), and references to pages.
pub trait HostPages {
    /// Returns the page, read in if necessary, with a reference that the caller [releases](HostPages::release). While
    /// `hva` is being invalidated this may still be the old page.
    ///
    /// # Errors
    /// [`PfnError::NoPage`]: the access ends in [`Exit::Error`](gpa_model::Exit::Error), and nothing is mapped.
    fn pfn(&self, hva: HostPage) -> Result<Pfn, PfnError>;

    /// The private page beside `hva`, in a VM with a shared bit, with a reference that the caller releases
    /// (`kvm_gmem_get_pfn()`).
    ///
    /// # Errors
    /// [`PfnError::NoPage`], which is the default: this host has no private memory.
    fn private_pfn(&self, _hva: HostPage) -> Result<Pfn, PfnError> {
        Err(PfnError::NoPage)
    }

    /// As [`HostPages::pfn`], without sleeping (`FOLL_NOWAIT`).
    ///
    /// # Errors
    /// A [`PfnError`].
    fn pfn_nowait(&self, hva: HostPage) -> Result<Pfn, PfnError> {
        self.pfn(hva)
    }

    /// Drops one reference to a page (`kvm_release_pfn_clean()`). A mapping holds no reference; the notifier says when
    /// it has to go. The default does nothing, for hosts that do not count references.
    fn release(&self, _pfn: Pfn) {}

    /// The size of the host mapping that contains `hva` (`host_pfn_mapping_level()`). A mapping that is being
    /// invalidated, even in part, counts as small.
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

    fn private_pfn(&self, hva: HostPage) -> Result<Pfn, PfnError> {
        let pfn = Host::private_pfn(self, hva);
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

/// Flushes the TLBs of a VM's vCPUs. When a call returns, no vCPU uses the flushed translations.
pub trait TlbFlush {
    /// Whether single ranges can be flushed (`kvm_available_flush_tlb_with_range()`).
    fn has_range(&self) -> bool;

    /// Flushes `pages` pages from `gpa` on every vCPU: this alias and no other.
    ///
    /// # Errors
    /// [`RangeFlushFailed`] if the flush failed. Nothing was flushed then.
    fn range(&mut self, gpa: Gpa, pages: u64) -> Result<(), RangeFlushFailed>;

    /// Flushes everything on some vCPUs.
    fn on(&mut self, vcpus: VcpuSet);

    /// Flushes everything (`kvm_flush_remote_tlbs()`).
    fn all(&mut self) {
        self.on(VcpuSet::ALL);
    }

    /// A table page is free: nothing links it, and its memory may be reused.
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
