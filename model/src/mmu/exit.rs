//! How an op ends, as the guest or user space sees it.

use crate::addr::{Gpa, Pfn};
use crate::frame_set::FrameSet;
use crate::variants::all;
use strum::{EnumCount, IntoStaticStr, VariantArray};

/// Why the guest gets a page fault, as the error code tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, EnumCount, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Fault {
    /// An entry is not present, or there is no memory where a table should be.
    NotPresent,
    /// The access needs a right that an entry on the way does not give.
    Protection,
    /// A reserved bit is set in a present entry. In EPT this is a misconfiguration.
    Reserved,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; Fault::COUNT] = all(Fault::VARIANTS);

    /// The word for it in the text format.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// How an op ended, as far as the guest or user space can tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Exit {
    /// The op was carried out and has no result.
    Done,
    /// The access reached this page.
    Memory(Pfn),
    /// The write was carried out by emulation on this page, and whoever tracks the frame was told.
    Emulated(Pfn),
    /// The access went to user space, which was told this address.
    Mmio(Gpa),
    /// Nothing happened; the guest will fault again.
    Retry,
    /// The request did not come to an end before a signal ended it (`EINTR`): the kernel went round and round.
    Interrupted,
    /// The fault waits to be ended.
    Pending,
    /// The dirty log of the slot.
    Dirty(FrameSet),
    /// Whether any of the pages was accessed since it was aged last.
    Young(bool),
    /// Where the guest's own tables lead, as the software walk tells it.
    Translated(Gpa),
    /// The guest gets a page fault, because of its own tables.
    GuestFault(Fault),
    /// The access failed in a way that user space sees as an error.
    Error,
    /// The access was refused as one to shared memory where its frame is private, or the other way round (`KVM_EXIT_MEMORY_FAULT`).
    #[strum(serialize = "misattributed")]
    MemoryFault,
    /// There is no memory where some was asked for (`ENOENT`).
    NotFound,
    /// The request was refused: it makes no sense (`EINVAL`).
    Refused,
    /// The vCPU does not run, or take a page, before user space has given back entries of its dirty ring.
    RingFull,
    /// The guest was told that the page is not there yet, and goes on with something else (`KVM_PV_REASON_PAGE_NOT_PRESENT`).
    PageNotPresent,
    /// The vCPU waits for a page that the guest was told is not there yet (`KVM_REQ_APF_HALT`).
    Halted,
    /// The guest was told that the page is there which it once faulted on by this address.
    PageReady(Gpa),
    /// The target cannot show the result of this op.
    Unsupported,
}

impl Exit {
    /// The name without its data.
    #[inline]
    pub fn name(&self) -> &'static str {
        self.into()
    }
}
