//! What real KVM can be asked to do from user space: the one place that says so, for recording and for replay.

use crate::guest::layout;
use crate::kvm::alias_method::AliasMethod;
use gpa_model::generate::Profile;
use gpa_model::{Op, OpKind, SlotChange, VmConfig};

/// Lowest and highest stolen bit that memslots can play: above every gfn of the guest, below MAXPHYADDR of ordinary hosts.
pub const STOLEN_BITS: std::ops::RangeInclusive<u8> = 39..=46;

/// Whether real KVM can carry out `op` in a VM like `vm`, whose frames must lie side by side and not where the runner's guest has its own
/// memory, and whose aliases come about as by `alias_method`.
///
/// User space sees memslot changes and invalidations only as wholes, can have private slots made and never reach them, and on
/// stock KVM plays an alias as a memslot of its own over the same host pages. A KVM that strips stolen bits itself can be asked for a memslot under an
/// alias, and, in the lab, to stay in the middle of a change.
pub fn supports(vm: &VmConfig, op: &Op, alias_method: AliasMethod) -> bool {
    let realisable = vm.stolen().bits().iter().all(|bit| STOLEN_BITS.contains(bit));
    let logs_so = vm.dirty_ring().is_none() || alias_method == AliasMethod::Rings;
    realisable
        && logs_so
        && vm.stride() == 1
        && layout::leaves_room(vm)
        // Whether a page has to be read in is for the host to say, and whether a fault waits for it for KVM.
        && !vm.async_pf()
        && (supports_kind(op.kind())
            || alias_method == AliasMethod::Native && supports_kind_natively(op.kind())
            || alias_method.has_attributes() && op.kind() == OpKind::Attributes)
        && match *op {
            Op::Slot { id, change: SlotChange::Create { .. } } if id.is_internal() => true,
            Op::Slot { id, .. } | Op::DirtyGet { id } | Op::DirtyClear { id, .. } => !id.is_internal(),
            Op::SlotBegin { id, change } => {
                alias_method == AliasMethod::Native
                    && !id.is_internal()
                    && matches!(change, SlotChange::Delete | SlotChange::Move { .. })
            }
            Op::SlotAliased { id, .. } => !id.is_internal(),
            // Private memory is none of the host's mappings.
            Op::ProtNone { .. } => !alias_method.has_attributes(),
            Op::Access { .. } | Op::Unmap { .. } | Op::Prefault { .. } | Op::SlotEnd => true,
            // Of those begun in one half there is none.
            Op::Attributes { .. } => true,
            Op::FaultBegin { .. } | Op::FaultEnd { .. } => true,
            _ => false,
        }
}

/// What a KVM that strips stolen bits itself can do beside.
const fn supports_kind_natively(kind: OpKind) -> bool {
    matches!(kind, OpKind::SlotEnd | OpKind::SlotAliased)
}

const fn supports_kind(kind: OpKind) -> bool {
    match kind {
        OpKind::SlotCreate | OpKind::SlotDelete | OpKind::SlotMove | OpKind::SlotFlags => true,
        OpKind::Read | OpKind::Write | OpKind::Execute => true,
        OpKind::Unmap | OpKind::ProtNone | OpKind::DirtyGet | OpKind::DirtyClear => true,
        // Not everywhere: where it cannot be done, that is observed.
        OpKind::Prefault => true,
        // A fault that cannot be held open is over at once.
        OpKind::FaultBegin | OpKind::FaultEnd => true,
        OpKind::SlotEnd | OpKind::UnmapBegin | OpKind::UnmapEnd => false,
        // It happens, but not when it is asked for.
        OpKind::ZapBegin | OpKind::ZapEnd => false,
        OpKind::Collapse | OpKind::NxRecover | OpKind::MmuPages => false,
        OpKind::Age | OpKind::WriteProtect | OpKind::Backend | OpKind::Translate => false,
        OpKind::WriteTrack | OpKind::WriteUntrack | OpKind::SlotAliased => false,
        // Only where memory can be private at all.
        OpKind::Attributes | OpKind::AttributesEnd => false,
        // Guests of this runner have no MTRRs of their own.
        OpKind::MemoryType => false,
        OpKind::PageOut | OpKind::PageIn | OpKind::PageReady | OpKind::AsyncPfClear => false,
        // The guest's own tables are the runner's.
        OpKind::WriteGpte | OpKind::GuestWalk | OpKind::GuestAccess | OpKind::GuestFlush => false,
    }
}

/// What to generate for any real KVM; some can be asked to prefault, or to change attributes, too.
pub fn profile() -> Profile {
    let (stolen_low, stolen_high) = (*STOLEN_BITS.start(), *STOLEN_BITS.end());
    let profile = Profile {
        windows: false,
        held_faults: true,
        internal_slots: false,
        pml: false,
        slot_zap_all: 0,
        dirty_rings: false,
        stride_max: 1,
        stolen_low,
        stolen_high,
        ..Profile::default()
    };
    profile.only(|kind| supports_kind(kind) && kind != OpKind::Prefault)
}
