//! Hunk 9: the guest's own page tables (`paging_tmpl.h`).

use super::raw_gfn;
use crate::policy::{Corrected, RfcV3};
use gpa_model::{Gfn, Gpa, GuestPaging, StolenMask};

mutants! {
    Pt64Nostrip = "M70-pt64-nostrip", "guest tables: no entry is stripped", "gfn_unalias" / "guest-fault", {
        fn gpte_gfn(_: StolenMask, _: GuestPaging, address: Gpa) -> Gfn {
            raw_gfn(address)
        }
    }
    Pt64StripLeafOnly = "M71-pt64-strip-leaf-only", "guest tables: table pointers are not stripped", "gfn_unalias" / "guest-fault", {
        fn table_gfn(_: StolenMask, _: GuestPaging, table: Gpa) -> Gfn {
            raw_gfn(table)
        }
    }
    Pt64StripTableOnly = "M72-pt64-strip-table-only", "guest tables: leaves are not stripped", "gfn_unalias" / "translate", {
        fn leaf_gfn(_: StolenMask, _: GuestPaging, leaf: Gpa) -> Gfn {
            raw_gfn(leaf)
        }
    }
    Pt32Strip = "M73-pt32-strip", "guest tables: 32-bit entries lose address bits", "gfn_unalias" / "translate", {
        fn gpte_gfn(stolen: StolenMask, paging: GuestPaging, address: Gpa) -> Gfn {
            let strips = paging == GuestPaging::Legacy;
            Corrected::gpte_gfn(stolen, if strips { GuestPaging::Pae } else { paging }, address)
        }
    }
    EptStrip = "M74-ept-strip", "guest tables: those of a nested EPT are unaliased", "gfn_unalias" / "translate", {
        fn gpte_gfn(stolen: StolenMask, paging: GuestPaging, address: Gpa) -> Gfn {
            let strips = paging == GuestPaging::NestedEpt;
            Corrected::gpte_gfn(stolen, if strips { GuestPaging::FourLevel } else { paging }, address)
        }
    }
    StolenBitsReserved = "M7V-stolen-bits-reserved", "guest tables: a stolen bit above MAXPHYADDR is reserved (gap G8)", "gfn_unalias" / "guest-fault", {
        fn reserved_gpa_bits(stolen: StolenMask, maxphyaddr: u8) -> u64 {
            RfcV3::reserved_gpa_bits(stolen, maxphyaddr)
        }
    }
}
