//! The pages that a vCPU waits for (`vcpu->async_pf`).

use gpa_model::limits::ASYNC_PF;
use gpa_model::{Access, Gfn, Gpa, HostPage};
use smallvec::SmallVec;

/// A page that is read in for a vCPU (`struct kvm_async_pf`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) gpa: Gpa,
    pub(crate) access: Access,
    /// The gfn by which a second fault on the page is recognised.
    pub(crate) gfn: Gfn,
    pub(crate) hva: HostPage,
    pub(crate) done: bool,
}

/// The pages that one vCPU waits for, in the order of the faults. They are few, so there is no hash.
#[derive(Debug, Default)]
pub(crate) struct AsyncPf(pub(crate) SmallVec<[Work; ASYNC_PF]>);

impl AsyncPf {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The gfns by which the pages are known.
    pub(crate) fn gfns(&self) -> impl Iterator<Item = Gfn> {
        self.0.iter().map(|work| work.gfn)
    }

    pub(crate) fn take_done(&mut self) -> Option<Work> {
        let at = self.0.iter().position(|work| work.done)?;
        Some(self.0.remove(at))
    }
}
