//! Mutants that repeat mistakes of Linux, each with its fix or CVE.

use super::aliased;
use crate::host::TlbFlush;
use crate::policy::{AliasFault, Corrected, LargeSeen, Mistake, SlotSeen};
use crate::tables::shadow_pages::SpKey;
use gpa_model::{Alias, Gfn, Gpa, GuestPaging, Rights, SlotChange, SlotId, StolenMask};

mutants! {
    NxRecoveryUnflushed = "B02-nx-recovery-unflushed", "history: recovery takes small leaves away without a flush (048f49809c52)", "alias_flush" / "free", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::RecoveredUnflushed
        }
    }
    FlushWrongStart = "B04-flush-wrong-start", "history: the flushed range begins too late (574c3c55e969)", "alias_flush" / "stale-write", {
        fn flush_range(&self, stolen: StolenMask, gfn: Gfn, pages: u64, tlb: &mut dyn TlbFlush) {
            Corrected.flush_range(stolen, gfn.add(1), pages, tlb);
        }
    }
    FlushOnePage = "B06-flush-one-page", "history: one page is flushed of a large leaf (9ffe9265375c)", "alias_flush" / "stale-write", {
        fn flushed_for_large(&self, _: Gfn, _: u64, _: Gfn, gfn: Gfn) -> (Gfn, u64) {
            (gfn, 1)
        }
    }
    FlushFromTable = "B06V-flush-from-table", "history: a large leaf is flushed from the first frame of its table on (1b2dc7360463)", "alias_flush" / "stale-write", {
        fn flushed_for_large(&self, _: Gfn, pages: u64, table: Gfn, _: Gfn) -> (Gfn, u64) {
            (table, pages)
        }
    }
    FreedBeforeFlush = "B07V-freed-before-flush", "history: table pages are freed before the flush (fcb93eb6d09d)", "alias_flush" / "free", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::FreedBeforeFlush
        }
    }
    ObsoleteSlots = "B15-obsolete-slots", "history: a fault is resolved against memslots that are gone (a955cad84cda)", "gfn_unalias" / "exit", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::SlotsUnchecked
        }
    }
    InvalidIsMmio = "B17-invalid-is-mmio", "history: an INVALID slot is taken for no slot (e0c378684b65)", "gfn_unalias" / "exit", {
        fn fault_in(&self, alias: Alias, slot: Option<SlotSeen>) -> AliasFault {
            Corrected.fault_in(alias, slot.filter(|slot| !slot.invalid))
        }
    }
    MoveWithoutZap = "B20-move-without-zap", "history: a slot moves without an INVALID step (CVE-2013-4592)", "gfn_unalias" / "spte", {
        fn zaps_for(&self, change: &SlotChange) -> bool {
            !matches!(change, SlotChange::Move { .. })
        }
    }
    MappableNotZappable = "B22-mappable-not-zappable", "history: frames above a bound are mapped but never zapped (86931ff7207b)", "gfn_unalias" / "spte", {
        fn can_zap(&self, gfn: Gfn) -> bool {
            gfn.raw() < 0x200
        }
    }
    MmioGenerationOverlap = "B23-mmio-generation-overlap", "history: a bit of the MMIO generation is lost (56871d444bc4)", "gfn_unalias" / "exit", {
        fn mmio_generation(&self, generation: u64) -> u64 {
            generation & !2
        }
    }
    MmioCachedInFlux = "B24-mmio-cached-in-flux", "history: MMIO is cached while memslots change (ddfd1730fd82)", "gfn_unalias" / "exit", {
        fn caches_mmio(&self, _: bool) -> bool {
            true
        }

        fn mmio_is_current(&self, made: u64, now: u64, _: bool) -> bool {
            made == now || made + 1 == now
        }
    }
    MmioWrapIgnored = "B25-mmio-wrap-ignored", "history: MMIO entries survive the wrap of the generation (152482580a1b)", "gfn_unalias" / "exit", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::MmioWrapIgnored
        }

        fn mmio_is_current(&self, made: u64, now: u64, in_flux: bool) -> bool {
            made >= now && !in_flux
        }
    }
    MmioOverPresent = "B26-mmio-over-present", "history: an MMIO entry is written over a present one (aad885e77496)", "structure" / "rmap", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::MmioOverPresent
        }
    }
    DirectForIndirect = "B28-direct-for-indirect", "history: a page of the direct kind serves for a table of the guest (CVE-2026-53359)", "gfn_unalias" / "spte", {
        fn same_shadow_page(&self, existing: &SpKey, wanted: &SpKey) -> bool {
            SpKey { direct: wanted.direct, ..*existing } == *wanted
        }
    }
    PrivateToNested = "B41-private-to-nested", "history: a guest of the guest finds private slots (3a2936dedd20)", "private_slot" / "nested-exit", {
        fn shows_private(&self, _: bool) -> bool {
            true
        }
    }
    AccessNotInherited = "B29-access-not-inherited", "history: what upper entries of the guest forbid is forgotten (CVE-2021-38198)", "gfn_unalias" / "exit", {
        fn child_access(&self, _: Rights, own: Rights) -> Rights {
            own
        }
    }
    RemoveKeyDiffers = "B27-remove-key-differs", "history: an rmap entry is looked for under another gfn than it was put under (CVE-2026-46113)", "structure" / "rmap", {
        fn remove_key(&self, gfn: Gfn, alias: Alias) -> Gfn {
            aliased(gfn, alias)
        }
    }
    ChildReused = "B27V-child-reused", "history: the shadow page that an entry leads to serves on, though the guest's table is another (CVE-2026-46113)", "gfn_unalias" / "exit", {
        fn reuses_child(&self, existing: &SpKey, wanted: &SpKey) -> bool {
            SpKey { gfn: wanted.gfn, ..*existing } == *wanted
        }
    }
    WrprotSkipsReadonly = "B31-wrprot-skips-readonly", "history: write-protection skips what is read-only but may be made writable without the lock (7c8a4742c4ab)", "gfn_unalias" / "exit", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::WriteProtectSkipsReadonly
        }
    }
    WalkRootLevel = "B33-walk-root-level", "history: the walk of a nested EPT begins at a wrong level (CVE-2017-12188)", "gfn_unalias" / "guest-fault", {
        fn walk_levels(&self, paging: GuestPaging) -> u8 {
            if paging == GuestPaging::NestedEpt { paging.levels() + 1 } else { paging.levels() }
        }
    }
    ClearOffByOne = "B34-clear-off-by-one", "history: the log forgets one page more than it was asked for", "dirty_log" / "missing", {
        fn cleared(&self, pages: u64) -> u64 {
            pages + 1
        }
    }
    RingWithoutVcpu = "B37-ring-without-vcpu", "history: a write that is taken over while its vCPU does not run finds no ring (CVE-2022-1263)", "dirty_log" / "missing", {
        fn has_ring(&self, writer: u8, running: Option<u8>) -> bool {
            running == Some(writer)
        }
    }
    NarrowSeq = "B38-narrow-mmu-seq", "history: the snapshot of mmu_seq has 31 bits (ba6e3fe25543)", "progress" / "retry", {
        fn snapshot(&self, mmu_seq: u64) -> u64 {
            mmu_seq & 0x7fff_ffff
        }
    }
    PrivateNotInvalidated = "B40-private-not-invalidated", "history: invalidations leave private slots out (878940b33d76)", "gfn_unalias" / "spte", {
        fn invalidates(&self, id: SlotId) -> bool {
            !id.is_internal()
        }
    }
    ApfOutlivesVcpu = "B42-apf-outlives-vcpu", "history: of what a vCPU waited for, that which is done outlives it (CVE-2024-26976)", "gfn_unalias" / "exit", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::ApfOutlivesVcpu
        }
    }
    ReadInNotHeld = "B43-read-in-not-held", "history: a page that is not there at once is mapped without a reference, which is dropped all the same (CVE-2021-22543)", "structure" / "pinned", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::ReadInNotHeld
        }
    }
    LargeWhileAttributesChange = "B47-large-while-changing", "history: a large leaf is made over frames whose attributes are changing (9129633d568e)", "gfn_unalias" / "spte", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::LargeWhileAttributesChange
        }
    }
    AttributesIgnored = "B47V-attributes-ignored", "history: a large leaf has private and shared frames", "large_leaf" / "attributes", {
        fn may_map_large(&self, seen: LargeSeen) -> bool {
            Corrected.may_map_large(LargeSeen { alike: true, ..seen })
        }
    }
    AttributesWithoutZap = "B47W-attributes-without-zap", "history: what maps frames stays when their attributes change", "large_leaf" / "attributes", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::AttributesWithoutZap
        }
    }
    NxListAfterZap = "B47X-nx-list-after-zap", "history: a page stays on the list of those to recover after it was zapped (21a36ac6b6c7)", "structure" / "nx-split", {
        fn plants(&self, of: Mistake) -> bool {
            of == Mistake::ZappedStaysListed
        }
    }
    PrefaultWrongRoot = "B49V-prefault-wrong-root", "history: asked for an alias, the base name is mapped (aa2024c01a9a)", "progress" / "mapped", {
        fn prefaulted(&self, stolen: StolenMask, gpa: Gpa) -> Gpa {
            stolen.join(stolen.split(gpa).0, Alias::NONE)
        }
    }
    AliasedSlotAccepted = "B49-aliased-slot-accepted", "history: a memslot at an aliased frame is accepted (2c3412e99973, gap G7)", "gfn_unalias" / "exit", {
        fn refuses_aliased_slots(&self) -> bool {
            false
        }
    }
}
