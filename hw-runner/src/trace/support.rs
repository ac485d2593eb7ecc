//! What user space can ask of real KVM. Recording and replay both use this definition.

use crate::guest::layout;
use crate::kvm::alias_method::AliasMethod;
use gpa_model::generate::Profile;
use gpa_model::{Op, OpKind, SlotChange, VmConfig};

/// The stolen bits that memslots can imitate: above every gfn of the guest, below the MAXPHYADDR of ordinary
/// hosts.
pub const STOLEN_BITS: std::ops::RangeInclusive<u8> = 39..=46;

/// Whether real KVM can carry out `op` in a VM like `vm` with aliases made by `alias_method`.
///
/// Frames must be adjacent, and not overlap the guest's own memory. User space sees memslot changes and invalidations only
/// as a whole, and can have internal memslots made but not changed. A KVM that strips stolen bits can also be asked for a
/// memslot under an alias and, in the lab, to wait in the middle of a memslot change.
pub fn supports(vm: &VmConfig, op: &Op, alias_method: AliasMethod) -> bool {
    let realisable = vm.stolen().bits().iter().all(|bit| STOLEN_BITS.contains(bit));
    let logs_so = vm.dirty_ring().is_none() || alias_method == AliasMethod::Rings;
    realisable
        && logs_so
        && vm.stride() == 1
        && layout::leaves_room(vm)
        // Neither the host's decision to page out nor KVM's to fault asynchronously can be asked for.
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
            // Private memory has no host mapping to protect.
            Op::ProtNone { .. } => !alias_method.has_attributes(),
            Op::Access { .. } | Op::Unmap { .. } | Op::Prefault { .. } | Op::SlotEnd => true,
            // The kind alone decides.
            Op::Attributes { .. } => true,
            Op::FaultBegin { .. } | Op::FaultEnd { .. } => true,
            _ => false,
        }
}

/// Additional ops on a KVM that strips stolen bits.
const fn supports_kind_natively(kind: OpKind) -> bool {
    matches!(kind, OpKind::SlotEnd | OpKind::SlotAliased)
}

const fn supports_kind(kind: OpKind) -> bool {
    match kind {
        OpKind::SlotCreate | OpKind::SlotDelete | OpKind::SlotMove | OpKind::SlotFlags => true,
        OpKind::Read | OpKind::Write | OpKind::Execute => true,
        OpKind::Unmap | OpKind::ProtNone | OpKind::DirtyGet | OpKind::DirtyClear => true,
        // Some KVMs lack it, which is observed.
        OpKind::Prefault => true,
        // A fault that cannot be held ends at once.
        OpKind::FaultBegin | OpKind::FaultEnd => true,
        OpKind::SlotEnd | OpKind::UnmapBegin | OpKind::UnmapEnd => false,
        // KVM does it, but cannot be asked to.
        OpKind::ZapBegin | OpKind::ZapEnd => false,
        OpKind::Collapse | OpKind::NxRecover | OpKind::MmuPages => false,
        OpKind::Age | OpKind::WriteProtect | OpKind::Backend | OpKind::Translate => false,
        OpKind::WriteTrack | OpKind::WriteUntrack | OpKind::SlotAliased => false,
        // Only VMs with private memory have them.
        OpKind::Attributes | OpKind::AttributesEnd => false,
        // The guest has no MTRRs of its own.
        OpKind::MemoryType => false,
        OpKind::PageOut | OpKind::PageIn | OpKind::PageReady | OpKind::AsyncPfClear => false,
        // The guest's page tables belong to the runner.
        OpKind::WriteGpte | OpKind::GuestWalk | OpKind::GuestAccess | OpKind::GuestFlush => false,
    }
}

/// What to generate for any real KVM. Some can prefault, or change attributes, in addition.
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
