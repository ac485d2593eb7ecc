//! What one op may come to.

use crate::addr::{Gfn, Gpa, Pfn};
use crate::frame_set::FrameSet;
use crate::mmu::{Exit, Fault};
use crate::program::{Rights, VmConfig};

/// The exits that are right for one op, and what must be gone when it returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// The page an access may reach.
    pub memory: Option<Pfn>,
    /// The page a tracked write may be emulated on.
    pub emulated: Option<Pfn>,
    /// The request may find nothing.
    pub not_found: bool,
    /// The request may be refused.
    pub refused: bool,
    /// The frame user space may be told about; any alias of it.
    pub mmio: Option<Gfn>,
    /// The access may be retried, because something is in flux or was since the fault began.
    pub retry: bool,
    /// The vCPU may have to wait for room in its dirty ring.
    pub ring_full: bool,
    /// The guest may be told that the page has to be read in.
    pub page_not_present: bool,
    /// The vCPU may wait for a page that the guest was told of.
    pub halted: bool,
    /// The page that the guest may be told is there, by the name it faulted on.
    pub page_ready: Option<Gpa>,
    /// It must be mapped under that name.
    pub ready_is_mapped: bool,
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
    pub fn admits(&self, vm: &VmConfig, exit: &Exit) -> bool {
        match *exit {
            Exit::Done => self.done,
            Exit::Memory(pfn) => self.memory == Some(pfn),
            Exit::Emulated(pfn) => self.emulated == Some(pfn),
            Exit::Refused => self.refused,
            Exit::NotFound => self.not_found,
            Exit::Mmio(gpa) => self.mmio.is_some_and(|gfn| vm.stolen().split(gpa).0 == gfn),
            Exit::Retry => self.retry,
            Exit::RingFull => self.ring_full,
            Exit::PageNotPresent => self.page_not_present,
            Exit::Halted => self.halted,
            Exit::PageReady(gpa) => self.page_ready == Some(gpa),
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
