//! What one op may come to.

use crate::addr::{Gpa, Pfn};
use crate::frame_set::FrameSet;
use crate::mmu::{Exit, Fault};
use crate::program::Rights;

/// The exits that are right for one op, and what must be gone when it returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// The page an access may reach.
    pub memory: Option<Pfn>,
    /// The page a tracked write may be emulated on.
    pub emulated: Option<Pfn>,
    /// The request may find nothing.
    pub not_found: bool,
    /// The request may be refused.
    pub refused: bool,
    /// The address that user space may be told: the one that was accessed, alias and all.
    pub mmio: Option<Gpa>,
    /// The access may be retried, because what it needs is in flux, or something was since the fault began. A request of user space
    /// may be interrupted then.
    pub retry: bool,
    /// The op is a request of user space, which a signal can end.
    pub interruptible: bool,
    /// The vCPU may have to wait for room in its dirty ring.
    pub ring_full: bool,
    /// The guest may be told that the page has to be read in.
    pub page_not_present: bool,
    /// The vCPU may wait for a page that the guest was told of.
    pub halted: bool,
    /// The pages that were read in, of which the guest is told one: by the alias it faulted on, which must be mapped then if the
    /// second is true.
    pub page_ready: Vec<(Gpa, bool)>,
    /// Other ends of an access through the guest's tables: where entries lead that a TLB may still hold.
    pub elsewhere: Vec<Exit>,
    /// The fault may wait for its end.
    pub pending: bool,
    /// The op may end without a result.
    pub done: bool,
    /// The log must hold the first set and may hold no frame outside of the second.
    pub dirty: Option<(FrameSet, FrameSet)>,
    /// The op tells whether pages were accessed.
    pub young: bool,
    /// Where the software walk leads.
    pub translated: Option<Gpa>,
    /// The fault that it ends in.
    pub guest_fault: Option<Fault>,
    /// It may also find a table gone that is being taken away.
    pub table_in_flux: bool,
    /// User space may see an error.
    pub error: bool,
    /// User space may be asked to make the memory private or shared.
    pub memory_fault: bool,
    /// Frames for which no translation, of any alias, may keep the rights in `revoked_rights` when the op returns.
    pub revoked: FrameSet,
    /// Which rights.
    pub revoked_rights: Rights,
    /// Frames that nothing may map, under any alias, when the op returns, though the guest is entitled to them as before.
    pub zapped: FrameSet,
    /// Frames whose entitlement this op may have changed.
    pub changed: FrameSet,
}

impl Allowed {
    /// Whether `exit` is one of them. What the dirty log and aging report is for their oracles to judge.
    pub fn admits(&self, exit: &Exit) -> bool {
        if self.elsewhere.contains(exit) {
            return true;
        }
        match *exit {
            Exit::Done => self.done,
            Exit::Memory(pfn) => self.memory == Some(pfn),
            Exit::Emulated(pfn) => self.emulated == Some(pfn),
            Exit::Refused => self.refused,
            Exit::NotFound => self.not_found,
            Exit::Mmio(gpa) => self.mmio == Some(gpa),
            Exit::Retry => self.retry,
            Exit::Interrupted => self.retry && self.interruptible,
            Exit::RingFull => self.ring_full,
            Exit::PageNotPresent => self.page_not_present,
            Exit::Halted => self.halted,
            Exit::PageReady(gpa) => self.page_ready.iter().any(|(ready, _)| *ready == gpa),
            Exit::Pending => self.pending,
            Exit::Dirty(_) => self.dirty.is_some(),
            Exit::Young(_) => self.young,
            Exit::Translated(gpa) => self.translated == Some(gpa),
            Exit::GuestFault(fault) => {
                self.guest_fault == Some(fault) || self.table_in_flux && fault == Fault::NotPresent
            }
            Exit::Error => self.error,
            Exit::MemoryFault => self.memory_fault,
            Exit::Unsupported => true,
        }
    }
}
