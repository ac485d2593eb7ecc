//! Mutants of private and shared memory, where the stolen bit is the shared bit.

use crate::policy::{DirectMirror, Family, Mistake};
use crate::tables::roots::GfnFilter;

mutants! {
    KindUnchecked = "U3S-kind-unchecked", "shared bit: a fault does not compare its address with the attribute", "gfn_unalias" / "exit", {
        fn family(&self) -> Family { DirectMirror.family() }

        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::KindUnchecked
        }
    }
    ConversionZapsNewKind = "U3T-conversion-zaps-new-kind", "shared bit: a conversion zaps the kind that comes, not the one that goes", "gfn_unalias" / "spte", {
        fn family(&self) -> Family { DirectMirror.family() }

        fn names_of_converted(&self, shared_private: bool, private: bool) -> GfnFilter {
            DirectMirror.names_of_converted(shared_private, !private)
        }
    }
    HoleSparesPrivate = "U3U-hole-spares-private", "shared bit: a hole in the guest_memfd zaps the shared addresses", "gfn_unalias" / "spte", {
        fn family(&self) -> Family { DirectMirror.family() }

        fn names_of_hole(&self) -> GfnFilter {
            GfnFilter::Shared
        }
    }
    DeletedPrivateOnly = "U3V-deleted-private-only", "shared bit: a memslot that is deleted leaves its shared addresses mapped", "gfn_unalias" / "spte", {
        fn family(&self) -> Family { DirectMirror.family() }

        fn names_of_deleted(&self) -> GfnFilter {
            GfnFilter::Private
        }
    }
    FaultOverConversion = "U3W-fault-over-conversion", "shared bit: a fault that began before a conversion maps the old kind", "gfn_unalias" / "exit", {
        fn family(&self) -> Family { DirectMirror.family() }

        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::FaultOverConversion
        }
    }
    PrefaultOtherKind = "U3X-prefault-other-kind", "shared bit: asked for a gfn, the private address is mapped whatever the attribute says (aa2024c01a9a)", "gfn_unalias" / "exit", {
        fn family(&self) -> Family { DirectMirror.family() }

        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::PrefaultOtherKind
        }
    }
    NotifierOfPrivate = "U3Y-notifier-of-private", "shared bit: the notifier zaps private addresses, which have no hva", "gfn_unalias" / "spte", {
        fn family(&self) -> Family { DirectMirror.family() }

        fn invalidated_names(&self, shared_private: bool) -> GfnFilter {
            if shared_private { GfnFilter::Private } else { GfnFilter::All }
        }
    }
}
