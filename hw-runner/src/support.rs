//! What real KVM can be asked to do from user space: the one place that says so, for recording and for replay.

use gpa_model::generate::Profile;
use gpa_model::{Op, OpKind, Vm};

/// Lowest and highest stolen bit that memslots can play: above every gfn of the guest, below MAXPHYADDR of ordinary hosts.
pub const STOLEN_BITS: std::ops::RangeInclusive<u8> = 39..=46;

/// Whether real KVM can carry out `op` in a VM like `vm`, whose frames must lie side by side.
///
/// User space sees memslot changes and invalidations only as wholes, cannot reach private slots, and on stock KVM plays an
/// alias as a memslot of its own over the same host pages.
pub fn supports(vm: &Vm, op: &Op) -> bool {
    let realisable = vm.stolen().bits().iter().all(|bit| STOLEN_BITS.contains(bit));
    realisable
        && vm.stride() == 1
        && supports_kind(op.kind())
        && match *op {
            Op::Slot { id, .. } | Op::DirtyGet { id } | Op::DirtyClear { id, .. } => !id.is_private(),
            Op::Access { .. } | Op::Unmap { .. } | Op::Prefault { .. } => true,
            Op::FaultBegin { .. } | Op::FaultEnd { .. } => true,
            _ => false,
        }
}

const fn supports_kind(kind: OpKind) -> bool {
    match kind {
        OpKind::SlotCreate | OpKind::SlotDelete | OpKind::SlotMove | OpKind::SlotFlags => true,
        OpKind::Read | OpKind::Write | OpKind::Execute => true,
        OpKind::Unmap | OpKind::DirtyGet | OpKind::DirtyClear => true,
        // Not everywhere: where it cannot be done, that is observed.
        OpKind::Prefault => true,
        // A fault that cannot be held open is over at once.
        OpKind::FaultBegin | OpKind::FaultEnd => true,
        OpKind::SlotEnd | OpKind::UnmapBegin | OpKind::UnmapEnd => false,
        OpKind::Collapse | OpKind::NxRecover | OpKind::MmuPages => false,
        OpKind::Age | OpKind::WriteProtect | OpKind::Backend | OpKind::Translate => false,
        OpKind::Track | OpKind::Untrack | OpKind::SlotAliased => false,
        OpKind::Attributes | OpKind::AttributesEnd => false,
        // Guests of this runner have no MTRRs of their own.
        OpKind::MemoryType => false,
        // The guest's own tables are the runner's.
        OpKind::WriteGpte | OpKind::GuestWalk => false,
    }
}

/// What to generate for any real KVM; some can be asked to prefault, too.
pub fn profile() -> Profile {
    let (stolen_low, stolen_high) = (*STOLEN_BITS.start(), *STOLEN_BITS.end());
    let profile = Profile {
        windows: false,
        held_faults: true,
        private_slots: false,
        pml: false,
        strides: false,
        stolen_low,
        stolen_high,
        ..Profile::default()
    };
    profile.only(|kind| supports_kind(kind) && kind != OpKind::Prefault)
}
