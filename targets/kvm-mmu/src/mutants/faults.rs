//! Mutants of hunks 6 and 7: a fault before its mapping (`kvm_faultin_pfn()`, `direct_page_fault()`).

use super::{aliased, raw_gfn};
use crate::policy::{AliasFault, Corrected, Mistake, RfcV3, SlotSeen};
use gpa_model::{Alias, Gfn, Gpa, SlotId, StolenMask};

mutants! {
    AliasPrivateExposed = "M50-alias-private-exposed", "fault-in: aliases of private slots are memory", "private_slot" / "alias-exit", {
        fn fault_in(&self, _: Alias, slot: Option<SlotSeen>) -> AliasFault {
            Corrected.fault_in(Alias::NONE, slot)
        }
    }
    InvalidAsNoslot = "M52-invalid-as-noslot", "fault-in: an alias of an INVALID slot has no slot (gap G2)", "gfn_unalias" / "exit", {
        fn fault_in(&self, alias: Alias, slot: Option<SlotSeen>) -> AliasFault {
            RfcV3.fault_in(alias, slot)
        }
    }
    AppliesToBase = "M54-applies-to-base", "fault-in: private slots are shut off under their base name too", "private_slot" / "base-exit", {
        fn fault_in(&self, alias: Alias, slot: Option<SlotSeen>) -> AliasFault {
            match slot {
                Some(slot) if slot.id.is_internal() && !slot.invalid => AliasFault::NoSlot,
                _ => Corrected.fault_in(alias, slot),
            }
        }
    }
    SlotIdOffByOne = "M55-slot-id-off-by-one", "fault-in: the first private slot counts as a user's", "private_slot" / "alias-exit", {
        fn fault_in(&self, alias: Alias, slot: Option<SlotSeen>) -> AliasFault {
            match slot {
                Some(slot) if slot.id == SlotId::internal(0) => Corrected.fault_in(Alias::NONE, Some(slot)),
                _ => Corrected.fault_in(alias, slot),
            }
        }
    }
    VisibleIgnoresInvalid = "M56-visible-ignores-invalid", "fault-in: an INVALID slot is mapped", "gfn_unalias" / "exit", {
        fn fault_in(&self, alias: Alias, slot: Option<SlotSeen>) -> AliasFault {
            Corrected.fault_in(alias, slot.map(|slot| SlotSeen { invalid: false, ..slot }))
        }
    }
    NotifierUnchecked = "M5V-notifier-unchecked", "fault-in: what raced with an invalidation is mapped", "gfn_unalias" / "exit", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::NotifierUnchecked
        }
    }
    StaleNotReleased = "M5W-stale-not-released", "fault-in: a fault that has to start again keeps its page", "structure" / "pinned", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::StaleNotReleased
        }
    }
    ReleasedBeforeMapped = "M5X-released-before-mapped", "fault-in: a page is let go of before it is mapped", "structure" / "pinned", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::ReleasedBeforeMapped
        }
    }
    NoPageIsNoSlot = "M5Y-no-page-is-no-slot", "fault-in: where nobody can have the page, there is no memory", "gfn_unalias" / "exit", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::NoPageIsNoSlot
        }
    }
    SlotRaw = "M61-slot-raw", "fault: the memslot is looked up by the raw frame", "gfn_unalias" / "exit", {
        fn slot_gfn(&self, _: StolenMask, gpa: Gpa) -> Gfn {
            raw_gfn(gpa)
        }
    }
    PagetrackRaw = "M62-pagetrack-raw", "fault: write tracking is looked up by the raw frame", "gfn_unalias" / "spte", {
        fn track_key(&self, gfn: Gfn, alias: Alias) -> Gfn {
            aliased(gfn, alias)
        }
    }
    StaleWhenever = "M5U-stale-whenever", "fault-in: a fault starts again while any invalidation is open", "progress" / "retry", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::StaleWhenever
        }
    }
}
