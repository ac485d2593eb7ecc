//! The design of the RFC, with its gaps.

use super::corrected::Corrected;
use super::decisions::{AliasFault, Policy, SlotSeen};
use crate::host::TlbFlush;
use gpa_model::{Alias, Gfn, Gpa, GuestPaging, StolenMask};

/// The RFC as posted (Message of 2021-11-24, "[RFC PATCH v3 31/59] KVM: x86: Add infrastructure for stolen GPA bits").
#[derive(Clone, Copy, Debug, Default)]
pub struct RfcV3;

impl Policy for RfcV3 {
    /// Gap G1: the result of flushing the alias range is ignored.
    fn flush_range(&self, stolen: StolenMask, gfn: Gfn, pages: u64, tlb: &mut dyn TlbFlush) {
        if !tlb.has_range() || stolen.alias_count() > 2 {
            return tlb.all();
        }
        if tlb.range(stolen.join(gfn, Alias::NONE), pages).is_err() {
            return tlb.all();
        }
        if stolen.alias_count() == 2 {
            let _unchecked = tlb.range(stolen.join(gfn, stolen.alias(1)), pages);
        }
    }

    /// Gap G2: an alias of an INVALID memslot counts as not visible, so the fault ends in MMIO instead of a retry.
    fn fault_in(&self, alias: Alias, slot: Option<SlotSeen>) -> AliasFault {
        let visible = slot.is_some_and(|slot| !slot.id.is_internal() && !slot.invalid);
        if !alias.is_none() && !visible {
            return AliasFault::NoSlot;
        }
        Corrected.fault_in(alias, slot)
    }

    /// Gap G5: the memory type is looked up by the raw gfn, which no MTRR covers. An earlier version of the RFC
    /// unaliased it (`kvm_tdp_page_fault()`).
    fn memory_type_gfn(&self, _: StolenMask, gpa: Gpa) -> Gfn {
        Gfn::new(gpa.page())
    }

    /// Gap G6: an address from the PML buffer keeps its stolen bits.
    fn pml_gfn(&self, _: StolenMask, gpa: Gpa) -> Gfn {
        Gfn::new(gpa.page())
    }

    /// Gap G8: stolen bits above MAXPHYADDR stay reserved, so the software walk faults where hardware does not.
    fn reserved_gpa_bits(&self, _: StolenMask, maxphyaddr: u8) -> u64 {
        StolenMask::NONE.reserved_gpa_bits(maxphyaddr)
    }

    /// Gap G10: nested NPT uses the template of long mode, so nested tables are stripped on one vendor's processors and
    /// not on the other's.
    fn gpte_gfn(&self, stolen: StolenMask, paging: GuestPaging, address: Gpa) -> Gfn {
        let paging = if paging == GuestPaging::NestedNpt { GuestPaging::FourLevel } else { paging };
        Corrected.gpte_gfn(stolen, paging, address)
    }

    /// Gap G11: bits of a guest entry count as stolen bits before the entry is known to be present.
    fn warns_of_gpte(&self, stolen: StolenMask, leaf: Gpa, _: Gfn, _: bool) -> bool {
        stolen.taints(leaf.page())
    }

    /// Gap G11: under shadow paging the faulting address is virtual, and its bits are not stolen bits.
    fn warns_of_fault(&self, stolen: StolenMask, gva: Gpa, _: Gfn) -> bool {
        stolen.taints(gva.page())
    }

    /// Gap G7: a memslot may have a gfn with a stolen bit.
    fn refuses_aliased_slots(&self) -> bool {
        false
    }
}
