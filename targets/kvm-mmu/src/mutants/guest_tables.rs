//! Mutants of hunk 9: the guest's own page tables (`paging_tmpl.h`).

use super::raw_gfn;
use crate::policy::{Corrected, Mistake, RfcV3};
use gpa_model::{Gfn, Gpa, GuestPaging, StolenMask};

mutants! {
    Pt64Nostrip = "M70-pt64-nostrip", "guest tables: no entry is stripped", "gfn_unalias" / "guest-fault", {
        fn gpte_gfn(&self, _: StolenMask, _: GuestPaging, address: Gpa) -> Gfn {
            raw_gfn(address)
        }
    }
    Pt64StripLeafOnly = "M71-pt64-strip-leaf-only", "guest tables: table pointers are not stripped", "gfn_unalias" / "guest-fault", {
        fn table_gfn(&self, _: StolenMask, _: GuestPaging, table: Gpa) -> Gfn {
            raw_gfn(table)
        }
    }
    Pt64StripTableOnly = "M72-pt64-strip-table-only", "guest tables: leaves are not stripped", "gfn_unalias" / "translate", {
        fn leaf_gfn(&self, _: StolenMask, _: GuestPaging, leaf: Gpa) -> Gfn {
            raw_gfn(leaf)
        }
    }
    Pt32Strip = "M73-pt32-strip", "guest tables: 32-bit entries lose address bits", "gfn_unalias" / "translate", {
        fn gpte_gfn(&self, stolen: StolenMask, paging: GuestPaging, address: Gpa) -> Gfn {
            let strips = paging == GuestPaging::Legacy;
            Corrected.gpte_gfn(stolen, if strips { GuestPaging::Pae } else { paging }, address)
        }
    }
    EptStrip = "M74-ept-strip", "guest tables: those of a nested EPT are unaliased", "gfn_unalias" / "translate", {
        fn gpte_gfn(&self, stolen: StolenMask, paging: GuestPaging, address: Gpa) -> Gfn {
            let strips = paging == GuestPaging::NestedEpt;
            Corrected.gpte_gfn(stolen, if strips { GuestPaging::FourLevel } else { paging }, address)
        }
    }
    PrefetchGpteNostrip = "M76-prefetch-gpte-nostrip", "shadowed guest tables: a neighbouring entry is not stripped", "gfn_unalias" / "warn", {
        fn prefetch_gfn(&self, _: StolenMask, _: GuestPaging, leaf: Gpa) -> Gfn {
            raw_gfn(leaf)
        }
    }
    WarnOnNonpresent = "M78-warn-on-nonpresent", "shadowed guest tables: an entry that is not present is warned of (gap G11)", "gfn_unalias" / "warn", {
        fn warns_of_gpte(&self, stolen: StolenMask, leaf: Gpa, gfn: Gfn, present: bool) -> bool {
            if present { Corrected.warns_of_gpte(stolen, leaf, gfn, present) } else { RfcV3.warns_of_gpte(stolen, leaf, gfn, present) }
        }
    }
    WarnOnGva = "M7W-warn-on-gva", "shadowed guest tables: a virtual address is warned of (gap G11)", "gfn_unalias" / "warn", {
        fn warns_of_fault(&self, stolen: StolenMask, gva: Gpa, gfn: Gfn) -> bool {
            RfcV3.warns_of_fault(stolen, gva, gfn)
        }
    }
    StolenBitsReserved = "M7V-stolen-bits-reserved", "guest tables: a stolen bit above MAXPHYADDR is reserved (gap G8)", "gfn_unalias" / "guest-fault", {
        fn reserved_gpa_bits(&self, stolen: StolenMask, maxphyaddr: u8) -> u64 {
            RfcV3.reserved_gpa_bits(stolen, maxphyaddr)
        }
    }
    UnsyncReadProtects = "M7U-unsync-read-protects", "shadowed guest tables: a read takes from a table out of step the right to write, without a flush", "alias_flush" / "stale-write", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::UnsyncReadProtects
        }
    }
    TableUnflushed = "M7X-table-unflushed", "shadowed guest tables: a table is write-protected without a flush", "alias_flush" / "lost-write", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::TableUnflushed
        }
    }
    ShadowLeafUnflushed = "M7Y-shadow-leaf-unflushed", "shadowed guest tables: a leaf is zapped without a flush", "alias_flush" / "virtual", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::ShadowLeafUnflushed
        }
    }
}
