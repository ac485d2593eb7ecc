//! Mutants of hunk 3: the key of a shadow page (`__kvm_mmu_get_page()`).

use super::aliased;
use crate::policy::Mistake;
use crate::tables::shadow_pages::SpKey;
use gpa_model::{Alias, Gpa, StolenMask};

mutants! {
    CompareOnlyGfn = "M21-compare-only-gfn", "shadow pages: aliases share one", "private_slot" / "alias-unmapped", {
        fn same_shadow_page(&self, existing: &SpKey, wanted: &SpKey) -> bool {
            SpKey { alias: wanted.alias, ..*existing } == *wanted
        }
    }
    StolenNotStored = "M22-stolen-not-stored", "shadow pages: the alias is not remembered", "private_slot" / "alias-unmapped", {
        fn stored_key(&self, key: SpKey) -> SpKey {
            SpKey { alias: Alias::NONE, ..key }
        }
    }
    SpGfnIncludesStolen = "M23-spgfn-includes-stolen", "shadow pages: the gfn carries the stolen bits", "gfn_unalias" / "keyed", {
        fn stored_key(&self, key: SpKey) -> SpKey {
            SpKey { gfn: aliased(key.gfn, key.alias), ..key }
        }
    }
    HashBucketOnlyGfn = "M20-hash-bucket-only-gfn", "__kvm_mmu_get_page(): a page is put into the hash by its gfn and looked up by its alias, too", "structure" / "unique", {
        fn bucket_key(&self, key: SpKey) -> SpKey {
            SpKey { alias: Alias::NONE, ..key }
        }
    }
    RoleCompareDropped = "M26-role-compare-dropped", "__kvm_mmu_get_page(): a page of any level serves", "structure" / "rmap", {
        fn same_shadow_page(&self, existing: &SpKey, wanted: &SpKey) -> bool {
            SpKey { level: wanted.level, ..*existing } == *wanted && (existing.direct || existing == wanted)
        }
    }
    WrapperNonzero = "M24-wrapper-nonzero", "kvm_mmu_get_page(): what is made of a table of the guest is tagged with the table's alias", "gfn_unalias" / "exit", {
        fn indirect_alias(&self, stolen: StolenMask, pointer: Gpa) -> Alias {
            stolen.split(pointer).1
        }
    }
    RecycledUnflushed = "M2V-recycled-unflushed", "kvm_mmu_commit_zap_page(): pages are made anew while TLBs still know them", "alias_flush" / "free", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::RecycledUnflushed
        }
    }
    ObsoleteFound = "M2W-obsolete-found", "__kvm_mmu_get_page(): a page of an older generation is found again", "gfn_unalias" / "spte", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::ObsoleteFound
        }
    }
    ObsoleteUnflushed = "M2X-obsolete-unflushed", "kvm_mmu_zap_all_fast(): TLBs know obsolete pages until these are taken apart", "alias_flush" / "stale-page", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::ObsoleteUnflushed
        }
    }
}
