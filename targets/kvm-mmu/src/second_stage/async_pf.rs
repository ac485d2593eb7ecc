//! The pages that a vCPU waits for (`vcpu->async_pf`).

use gpa_model::limits::ASYNC_PF;
use gpa_model::{Access, Gfn, Gpa, HostPage};
use smallvec::SmallVec;

/// A page that is read in for a vCPU (`struct kvm_async_pf`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) gpa: Gpa,
    pub(crate) access: Access,
    /// What it is known by.
    pub(crate) gfn: Gfn,
    pub(crate) hva: HostPage,
    pub(crate) done: bool,
}

/// What one vCPU waits for, in the order in which it faulted. So little is found without a hash.
#[derive(Debug, Default)]
pub(crate) struct AsyncPf(pub(crate) SmallVec<[Work; ASYNC_PF]>);

impl AsyncPf {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The gfns, as they are known.
    pub(crate) fn gfns(&self) -> impl Iterator<Item = Gfn> {
        self.0.iter().map(|work| work.gfn)
    }

    pub(crate) fn take_done(&mut self) -> Option<Work> {
        let at = self.0.iter().position(|work| work.done)?;
        Some(self.0.remove(at))
    }
}
