//! Mutants of hunks 4 and 5: prefetch and mapping (`direct_pte_prefetch_many()`, `__direct_map()`).

use super::aliased;
use crate::policy::{Corrected, LargeSeen, Mistake};
use gpa_model::{Alias, Gfn, Gpa, Level, Levels, SlotId, StolenMask};

mutants! {
    PrefetchPrivate = "M30-prefetch-private", "prefetch: private slots under an alias", "private_slot" / "alias-unmapped", {
        fn may_prefetch(&self, _: Alias, _: SlotId) -> bool {
            true
        }
    }
    PrefetchOffByOne = "M31-prefetch-off-by-one", "prefetch: the first private slot counts as a user's", "private_slot" / "alias-unmapped", {
        fn may_prefetch(&self, alias: Alias, id: SlotId) -> bool {
            alias.is_none() || !id.is_internal() || id == SlotId::internal(0)
        }
    }
    PrefetchInInvalidation = "M3V-prefetch-in-invalidation", "prefetch: of pages that are being taken away", "gfn_unalias" / "spte", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::PrefetchInInvalidation
        }
    }
    FourLevels = "M4V-four-levels", "mapping: four levels of tables where an alias needs five", "private_slot" / "alias-unmapped", {
        fn levels(&self, _: Levels) -> Levels {
            Levels::Four
        }
    }
    StolenFromGfn = "M40-stolen-from-gfn", "mapping: shadow pages of an alias are tagged as those of the base name", "structure" / "rmap", {
        fn alias_of(&self, _: StolenMask, _: Gpa) -> Alias {
            Alias::NONE
        }
    }
    WalkByGfn = "M41-walk-by-gfn", "mapping: the tables are walked by the base address", "progress" / "retry", {
        fn walked(&self, stolen: StolenMask, gpa: Gpa) -> Gpa {
            stolen.join(stolen.split(gpa).0, Alias::NONE)
        }
    }
    BaseGfnAliased = "M42-basegfn-aliased", "mapping: the base gfn carries the stolen bits", "gfn_unalias" / "keyed", {
        fn base_gfn(&self, gfn: Gfn, alias: Alias) -> Gfn {
            aliased(gfn, alias)
        }
    }
    RmapAliased = "M43-rmap-aliased", "mapping: the rmap key carries the stolen bits", "gfn_unalias" / "spte", {
        fn rmap_key(&self, gfn: Gfn, alias: Alias) -> Gfn {
            aliased(gfn, alias)
        }
    }
    PfnFromRaw = "M44-pfn-from-raw", "mapping: the page is as far into its leaf as the raw frame is", "gfn_unalias" / "exit", {
        fn offset_in_leaf(&self, _: StolenMask, gpa: Gpa, leaf: Gfn) -> u64 {
            gpa.page().wrapping_sub(leaf.raw())
        }
    }
    ExecuteMappedLarge = "M4T-execute-mapped-large", "mapping: a fetch is mapped large where that cannot be executed", "progress" / "retry", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::ExecuteMappedLarge
        }
    }
    LargeExecutable = "M4U-large-executable", "mapping: a large leaf is executable where none must be (CVE-2018-12207)", "large_leaf" / "executable", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::LargeExecutable
        }
    }
    LargeBeyondSlot = "M4V-large-beyond-slot", "mapping: a large leaf reaches beyond its memslot", "gfn_unalias" / "spte", {
        fn may_map_large(&self, seen: LargeSeen) -> bool {
            Corrected.may_map_large(LargeSeen { inside_slot: true, ..seen })
        }
    }
    LargeIncongruent = "M4W-large-incongruent", "mapping: a large leaf where gfns and hvas are not equally aligned", "gfn_unalias" / "spte", {
        fn may_map_large(&self, seen: LargeSeen) -> bool {
            Corrected.may_map_large(LargeSeen { congruent: true, ..seen })
        }
    }
    LargeWhileLogging = "M4X-large-while-logging", "mapping: a large leaf in a slot that logs", "dirty_log" / "missing", {
        fn may_map_large(&self, seen: LargeSeen) -> bool {
            Corrected.may_map_large(LargeSeen { logged: false, ..seen })
        }
    }
    LargeOverTracked = "M4Y-large-over-tracked", "mapping: a large leaf over a page whose writes are tracked", "gfn_unalias" / "spte", {
        fn may_map_large(&self, seen: LargeSeen) -> bool {
            Corrected.may_map_large(LargeSeen { tracked: false, ..seen })
        }
    }
    LevelBeforeLock = "M4Z-level-before-lock", "mapping: the host's large page is looked at without the lock", "gfn_unalias" / "spte", {
        fn host_level(&self, _: Level, before: Level) -> Level {
            before
        }
    }
    TableReplacedUnflushed = "M4S-table-replaced-unflushed", "mapping: a large leaf replaces a table without a flush", "alias_flush" / "size", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::TableReplacedUnflushed
        }
    }
}
